use serde_json::Value;

use super::*;

fn line(record: &Record<'_>) -> String {
    let mut out = Vec::new();
    record.render(&mut out);
    String::from_utf8(out).unwrap()
}

fn read(record: &Record<'_>) -> Value {
    let line = line(record);
    assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
    serde_json::from_str(&line).unwrap()
}

fn full<'a>(plugins: &'a [PluginCall<'a>]) -> Record<'a> {
    Record {
        at: Duration::from_micros(1_764_000_000_000_042),
        id: 0x00ab_cdef_0123_4567,
        listener: "https",
        client: Some("203.0.113.7:51000".parse().unwrap()),
        peer: Some("[::ffff:10.0.0.2]:4000".parse().unwrap()),
        tls: Some(Tls {
            sni: Some("shop.example"),
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            group: Some("X25519MLKEM768"),
            resumed: false,
            tier: "redis",
        }),
        host: Some("shop.example"),
        method: "GET",
        path: "/a",
        query: Some("q=1"),
        http: "2",
        status: 502,
        body_bytes_in: 3,
        body_bytes_out: u64::MAX,
        duration: Duration::from_micros(1234),
        answer: "upstream_fault",
        plugins,
        upstream: Some(Upstream {
            name: "shop",
            address: Some("[2001:db8::1]:80".parse().unwrap()),
            tries: 2,
            reused: true,
            connect: Some(Duration::from_micros(7)),
            first_byte: None,
        }),
        fault: Some(Fault { culprit: "upstream", error: "broke off" }),
        revision: 9,
        ..Record::default()
    }
}

#[test]
fn a_line_tells_all_that_is_known() {
    let plugins = [
        PluginCall { name: "hsts", micros: 12, waited_micros: 4567, verdict: "edit" },
        PluginCall { name: "redirects", micros: 0, waited_micros: 0, verdict: "next" },
    ];
    assert_eq!(
        line(&full(&plugins)),
        "{\"time\":\"2025-11-24T16:00:00.000042Z\",\"id\":\"00abcdef01234567\",\"listener\":\"https\",\
         \"client\":\"203.0.113.7:51000\",\"peer\":\"10.0.0.2:4000\",\"sni\":\"shop.example\",\"tls\":\"TLSv1.3\",\
         \"cipher\":\"TLS_AES_128_GCM_SHA256\",\"group\":\"X25519MLKEM768\",\"resumed\":false,\"tier\":\"redis\",\
         \"host\":\"shop.example\",\"method\":\"GET\",\"path\":\"/a\",\"query\":\"q=1\",\"http\":\"2\",\"status\":502,\
         \"body_bytes_in\":3,\"body_bytes_out\":18446744073709551615,\"duration_us\":1234,\"answer\":\"upstream_fault\",\
         \"plugins\":[{\"name\":\"hsts\",\"us\":12,\"waited_us\":4567,\"verdict\":\"edit\"},{\"name\":\"redirects\",\"us\":0,\"verdict\":\"next\"}],\
         \"upstream\":\"shop\",\"upstream_address\":\"[2001:db8::1]:80\",\"tries\":2,\"reused\":true,\"connect_us\":7,\
         \"culprit\":\"upstream\",\"error\":\"broke off\",\"revision\":9}\n"
    );
}

#[test]
fn what_a_proxy_header_said_is_told() {
    let said = Introduction {
        unique_id: Some(b"id\xff\n".to_vec()),
        aws_vpce_id: Some("vpce-0123456789abcdef0".into()),
        azure_link_id: Some(u32::MAX),
        gcp_psc_id: Some(u64::MAX),
    };
    let read = read(&Record { introduction: Some(&said), ..full(&[]) });
    assert_eq!((&read["unique_id"], &read["aws_vpce_id"]), (&"id\u{ff}\n".into(), &"vpce-0123456789abcdef0".into()));
    assert_eq!((&read["azure_link_id"], &read["gcp_psc_id"]), (&u32::MAX.into(), &u64::MAX.to_string().into()));
    let said = Introduction { unique_id: Some(vec![b'x'; 129]), ..Introduction::default() };
    let line = line(&Record { introduction: Some(&said), ..full(&[]) });
    assert!(line.contains(&format!("\"unique_id\":\"{}…\",\"sni\"", "x".repeat(128))), "{line}");
}

#[test]
fn what_is_not_known_is_left_out() {
    let record = Record { listener: "http", method: "GET", path: "/", http: "1.1", answer: "bad_host", ..full(&[]) };
    let record = Record { tls: None, host: None, query: None, upstream: None, fault: None, client: None, ..record };
    let read = read(&record);
    for name in ["sni", "tls", "tier", "host", "host_sent", "query", "plugins", "upstream", "culprit", "client"] {
        assert!(read.get(name).is_none(), "{name}");
    }
}

#[test]
fn nothing_that_a_visitor_sends_breaks_a_line() {
    let all: Vec<u8> = (0..=255).collect();
    let text: String = (0..=255u8).map(char::from).collect();
    let record = Record { host: None, host_sent: Some(&all), path: &text, method: "G\"\n", ..full(&[]) };
    let read = read(&record);
    assert_eq!(read["path"], text);
    assert_eq!(read["host_sent"], text, "bytes that are not UTF-8 are shown one by one");
    assert_eq!(read["method"], "G\"\n");
    assert!(!line(&record).contains("\u{7f}"));
}

#[test]
fn a_line_has_a_longest_length() {
    let (long, bytes) = ("\u{1}".repeat(9000), vec![0xff; 9000]);
    let record = Record {
        host: Some(&long),
        host_sent: Some(&bytes),
        method: &long,
        path: &long,
        query: Some(&long),
        fault: Some(Fault { culprit: "upstream", error: &long }),
        ..full(&[])
    };
    let read = read(&record);
    assert_eq!(read["path"].as_str().unwrap().chars().count(), TARGET_BYTES_MAX + 1);
    assert!(read["path"].as_str().unwrap().ends_with('…'));
    assert!(line(&record).len() < LINE_BYTES_MAX, "{}", line(&record).len());
    let names: Vec<_> =
        (0..500).map(|_| PluginCall { name: "plugin-name", micros: 1, waited_micros: 0, verdict: "next" }).collect();
    let named = Record { plugins: &names, ..record };
    assert!(line(&named).len() < LINE_BYTES_MAX);
    assert_eq!(self::read(&named)["plugins"].as_array().unwrap().len(), PLUGINS_MAX);
}

#[test]
fn a_text_is_cut_at_its_limit_and_not_before() {
    let record = |path: &str| read(&Record { path, ..full(&[]) })["path"].as_str().unwrap().to_owned();
    let at_limit = "p".repeat(TARGET_BYTES_MAX);
    assert_eq!(record(&at_limit), at_limit);
    assert_eq!(record(&format!("{at_limit}p")), format!("{at_limit}…"));
}

#[test]
fn dates_are_right() {
    for (days, expected) in [
        (0, (1970, 1, 1)),
        (59, (1970, 3, 1)),
        (11_016, (2000, 2, 29)),
        (11_017, (2000, 3, 1)),
        (20_454, (2026, 1, 1)),
        (20_514, (2026, 3, 2)),
        (47_540, (2100, 2, 28)),
        (47_541, (2100, 3, 1)),
    ] {
        assert_eq!(date(days), expected, "{days}");
    }
}
