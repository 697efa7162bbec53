use super::*;

fn regex(from: &str, to: &str) -> Rule {
    Rule::expression(from, to).unwrap()
}

fn dropping(rule: Rule) -> Rule {
    Rule { query: Some("drop"), ..rule }
}

#[test]
fn reads_maps_with_what_is_done_with_them() {
    let text = r#"
server { if ($new) { return 308 $new; } }
map $request_uri $new { # moved
    default "";
    /old /new;
    "/a b" '/c';
    ~^/y/([0-9]{4})/(.*)$ /posts/$1-$2;
    ~*^/Case$ /case;
}
map $uri $kept { /k https://kept.example/; }
rewrite ^ $kept redirect;
map $uri $alone { /l /m; }
"#;
    let imported = read(text);
    assert_eq!(imported.left_out, []);
    assert_eq!(
        imported.rules,
        [
            dropping(Rule::exact("/old", "/new").with_status(308)),
            dropping(Rule::exact("/a%20b", "/c").with_status(308)),
            dropping(regex("^/y/([0-9]{4})/(.*)$", "/posts/$1-$2").with_status(308)),
            dropping(regex("^/(?i)Case$", "/case").with_status(308)),
            Rule::exact("/k", "https://kept.example/").with_status(302),
            dropping(Rule::exact("/l", "/m")),
        ]
    );
}

#[test]
fn reads_what_servers_hold_for_their_names() {
    let text = r#"
http{
server {
    listen 80;
    server_name shop.example .all.example;
    rewrite ^/blog/(.*)$ https://news.example/$1? permanent;
    location = /gone { return 410; }
    location = /x { return 308 $scheme://$host/z$is_args$args; }
    location / { rewrite ^/tmp$ /now redirect; proxy_pass http://app; }
    location /api { return 200; }
}
server { return 301 https://shop.example$request_uri; server_name www.shop.example; }
}
rewrite ^/any$ /thing permanent;
"#;
    let imported = read(text);
    let told: Vec<_> = imported.left_out.iter().map(|left_out| left_out.line).collect();
    assert_eq!(told, [10], "a return that is no redirect, in a block for some paths");
    let shop: Vec<_> = imported.rules.iter().filter(|rule| rule.host.as_deref() == Some("shop.example")).collect();
    let expected = [
        dropping(regex("^/blog/(.*)$", "https://news.example/$1")),
        Rule::exact("/gone", "").with_status(410),
        Rule::exact("/x", "/z").with_status(308),
        regex("^/tmp$", "/now").with_status(302),
    ];
    assert_eq!(
        shop,
        expected.iter().map(|rule| rule.on("shop.example")).collect::<Vec<_>>().iter().collect::<Vec<_>>()
    );
    let hosts: Vec<_> = imported.rules.iter().map(|rule| rule.host.as_deref().unwrap_or_default()).collect();
    assert_eq!(hosts[..3], ["shop.example", "all.example", "*.all.example"]);
    assert!(imported.rules.contains(&Rule::of_kind("prefix", "/", "https://shop.example").on("www.shop.example")));
    assert_eq!(imported.rules.last(), Some(&regex("^/any$", "/thing")));
}

#[test]
fn a_servers_own_return_comes_after_its_rewrites_and_before_its_locations() {
    let text = r#"server {
    server_name old.example;
    rewrite ^/blog/(.*)$ https://news.example/$1 permanent;
    return 301 https://new.example$request_uri;
    rewrite ^/late$ /never permanent;
    location = /x { return 302 /y; }
}"#;
    let imported = read(text);
    let expected = [regex("^/blog/(.*)$", "https://news.example/$1"), regex("^/(.*)$", "https://new.example/$1")];
    assert_eq!(imported.rules, expected.map(|rule| rule.on("old.example")));
    let lines: Vec<_> = imported.left_out.iter().map(|left_out| left_out.line).collect();
    assert_eq!(lines, [5, 6]);
    assert!(imported.left_out.iter().all(|left_out| left_out.why.contains("never reached")), "{imported:?}");
}

#[test]
fn no_rule_means_more_than_its_words() {
    let left_out = |text: &str, says: &str| {
        let imported = read(text);
        assert_eq!(imported.rules, [], "{text}");
        assert!(imported.left_out[0].why.contains(says), "{imported:?}");
    };
    left_out("location = /old { rewrite ^/(.*)$ https://archive.example/$1 permanent; }", "for that path only");
    left_out("server { server_name _; rewrite ^/a$ /b permanent; }", "no server_name");
    left_out("server { location = /a { return 301 /b; } }", "no server_name");
    left_out("location = /a { return 204; }", "no redirect");
    left_out("server { server_name shop.example; return 301 https://shop.example$request_uri; }", "to itself");
    let imported =
        read("server { server_name shop.example www.shop.example; return 301 https://shop.example$request_uri; }");
    assert_eq!(imported.rules, [Rule::of_kind("prefix", "/", "https://shop.example").on("www.shop.example")]);
    let imported = read("location = /a { return https://b.example/; }\nlocation = /c { return 410 \"gone\"; }");
    let expected =
        [dropping(Rule::exact("/a", "https://b.example/").with_status(302)), Rule::exact("/c", "").with_status(410)];
    assert_eq!(imported.rules, expected);
}

#[test]
fn tells_what_has_no_counterpart() {
    let text = r#"map $host $x { a.example /b; }
map $uri $y { ~^/c(?=d) /d; }
rewrite ^/e /f last;
rewrite ^/g /$h permanent;
rewrite i /j permanent;
return 301 /k;
if ($cookie) { rewrite ^/l /m permanent; }
location ~ ^/n { return 301 /o; }
server { server_name a.example ~^b; return 301 https://$host$request_uri; }
server { server_name ~^c\.example; rewrite ^/p /q permanent; }
map $uri $z { default /r; /s?t /u; v /w; }
rewrite ^/x /y
"#;
    let imported = read(text);
    assert_eq!(imported.rules, []);
    let says = [
        (1, "not on $uri"),
        (2, "look"),
        (3, "within the server"),
        (4, "has a variable"),
        (5, "does not begin with ^/"),
        (6, "only `server` and `location"),
        (7, "conditions have no counterpart"),
        (8, "stands in `location ~ ^/n`"),
        (9, "to https by itself"),
        (10, "server_name `~^c\\.example`"),
        (11, "every other path"),
        (11, "has a query"),
        (11, "not a path"),
        (12, "ends within"),
    ];
    let mut left_out = imported.left_out;
    left_out.sort_by_key(|left_out| left_out.line);
    assert_eq!(left_out.len(), says.len(), "{left_out:#?}");
    for (told, (line, says)) in left_out.iter().zip(says) {
        assert!(told.line == line && told.why.contains(says), "{told:?}, not {says}");
    }
}
