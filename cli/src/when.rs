/// Unix seconds as people read them: `2026-11-23 02:05 UTC`.
pub(crate) fn date(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600, seconds / 60 % 60)
}

/// Unix seconds of what the plugins' settings have: `2026-12-01`, `2026-12-01T09:30Z`.
pub(crate) fn unix(text: &str) -> Option<u64> {
    let (day, time) = text.split_once('T').unwrap_or((text, "00:00Z"));
    let numbers = |text: &str, by: char| text.split(by).map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>();
    let (day, time) = (numbers(day, '-')?, numbers(time.strip_suffix('Z')?, ':')?);
    let (&[year @ 1970..=9999, month @ 1..=12, day @ 1..=31], &[hour @ 0..=23, minute @ 0..=59]) =
        (day.as_slice(), time.as_slice())
    else {
        return None;
    };
    // At least so many days have passed at the year's begin; the calendar says which of the next it is.
    let from = (year - 1970) * 365;
    let at = (from..=from + (year - 1970) / 4 + 366).find(|days| civil(*days) == (year, month, day))?;
    Some(at * 86_400 + hour * 3600 + minute * 60)
}

/// How far away: `29 days`, `3 hours`, `40 seconds`.
pub(crate) fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

pub(crate) fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}

/// Gregorian date of a day since 1970-01-01: years begin in March, so that the leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    const DAYS_FROM_0000_03_01: u64 = 719_468;
    let days = days + DAYS_FROM_0000_03_01;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next_year) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next_year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_gregorian() {
        for (unix, shown) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(unix), shown);
        }
    }

    #[test]
    fn dates_are_read_as_they_are_written() {
        for unix_seconds in [0, 951_782_400, 1_709_251_140, 1_796_083_200, 4_107_542_400] {
            let written = date(unix_seconds).replace(" UTC", "Z").replace(' ', "T");
            assert_eq!(unix(&written), Some(unix_seconds), "{written}");
        }
        assert_eq!(unix("2026-12-01"), Some(1_796_083_200));
        for text in ["", "2026", "2026-02-30", "2026-13-01", "2026-12-01T24:00Z", "2026-12-01T10:00", "1969-12-31"] {
            assert_eq!(unix(text), None, "{text}");
        }
    }

    #[test]
    fn spans_use_the_unit_that_fits() {
        assert_eq!(
            [1, 119, 120, 7_199, 7_200, 172_800].map(span),
            ["1 second", "119 seconds", "2 minutes", "119 minutes", "2 hours", "2 days"]
        );
    }
}
