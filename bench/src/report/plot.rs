//! Bars by hand: for each case, what every server costs. The longest bar of a case is as long as that of any other.

use std::fmt::Write;

use super::{Case, Part};
use crate::peers::LATCHKEY;

const WIDTH: f64 = 860.0;
const LABELS: f64 = 150.0;
const BARS: f64 = 560.0;
const ROW: f64 = 20.0;
const TITLE: f64 = 34.0;

pub(super) fn svg(parts: &[Part]) -> String {
    let cases = parts.iter().flat_map(|part| part.cases.iter().map(move |case| (part.letter, case)));
    let cases: Vec<_> = cases.filter(|(_, case)| case.series.len() > 1 && !case.unit.starts_with('%')).collect();
    let mut body = String::new();
    let mut y = 10.0;
    for (letter, case) in cases {
        y = bars(&mut body, letter, case, y);
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" width=\"{WIDTH}\" height=\"{y}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
    )
}

fn bars(body: &mut String, letter: char, case: &Case, top: f64) -> f64 {
    let spreads: Vec<_> = case.series.iter().filter_map(|series| Some((series, series.spread()?))).collect();
    let longest = spreads.iter().map(|(_, spread)| spread.max).fold(0.0, f64::max);
    let scale = if longest > 0.0 { BARS / longest } else { 0.0 };
    let mut y = top + TITLE;
    let _ = writeln!(
        body,
        "<text x=\"10\" y=\"{}\" font-weight=\"bold\">({letter}) {}, {}</text>",
        y - 10.0,
        escaped(&case.name),
        escaped(&case.unit)
    );
    for (series, spread) in spreads {
        let colour = if series.peer == LATCHKEY { "#1f6feb" } else { "#9aa4b2" };
        let (middle, width) = (y + ROW / 2.0 - 2.0, spread.median * scale);
        let (low, high) = (LABELS + spread.min * scale, LABELS + spread.max * scale);
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" \
             height=\"{}\" fill=\"{colour}\"/><path d=\"M{low:.1} {middle}H{high:.1}\" stroke=\"#24292f\"/>\
             <text x=\"{:.1}\" y=\"{}\">{:.2}</text>",
            LABELS - 8.0,
            middle + 4.0,
            escaped(&series.peer),
            ROW - 4.0,
            high.max(LABELS + width) + 6.0,
            middle + 4.0,
            spread.median
        );
        y += ROW;
    }
    y + 6.0
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_a_bar_and_text_is_escaped() {
        let mut case = Case::new("a < b", "µs");
        case.add(LATCHKEY, 1.0);
        case.add("nginx", 2.0);
        let svg = svg(&[Part { letter: 'a', cases: vec![case], ..Part::default() }]);
        assert_eq!(svg.matches("<rect x=").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.contains("width=\"560.0\""), "{svg}");
    }
}
