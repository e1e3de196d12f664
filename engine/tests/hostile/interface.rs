//! `/v1/openapi.json` and what the storage point really answers.

use crate::{
    client::{get, publish, request},
    processes::Pair,
};
use acms_engine::protocol::Hash;
use serde_json::Value;
use std::{
    io::Write as _,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

/// Follows `$ref`.
fn resolved<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(at) => document.pointer(at.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{at} is not there")),
        None => value,
    }
}

/// What of `value` the schema does not allow. (The keywords that the document uses, and no others.)
fn violations(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolved(document, schema);
    let mut found = Vec::new();
    let mut wrong = |what: String| found.push(format!("{at}: {what}: {value}"));
    let is_type = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some(other) => panic!("{other} is no type"),
        None => true,
    };
    if !is_type {
        wrong(format!("no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|all| !all.contains(value))
        || schema.get("const").is_some_and(|c| c != value)
    {
        wrong("not one of those that are allowed".to_owned());
    }
    if let (Some(min), Some(number)) = (schema["minimum"].as_u64(), value.as_u64())
        && number < min
    {
        wrong("too small".to_owned());
    }
    if let (Some(pattern), Some(text)) = (schema["pattern"].as_str(), value.as_str())
        && !matches(pattern, text)
    {
        wrong(format!("does not match {pattern}"));
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(name).is_none() {
            wrong(format!("has no {name}"));
        }
    }
    for (name, part) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(name) {
            Some(schema) => found.extend(violations(document, schema, part, &format!("{at}/{name}"))),
            None if schema["additionalProperties"] == false => {
                found.push(format!("{at}: {name} is not in the document"))
            }
            None => {}
        }
    }
    for item in value.as_array().into_iter().flatten() {
        found.extend(violations(document, &schema["items"], item, &format!("{at}[]")));
    }
    found
}

/// The patterns of the document: classes of characters with `+` or `{n}`, and characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut rest = text;
    let mut pattern = pattern.strip_prefix('^').and_then(|pattern| pattern.strip_suffix('$')).unwrap();
    while !pattern.is_empty() {
        if let Some(class) = pattern.strip_prefix('[') {
            let (class, after) = class.split_once(']').unwrap();
            let is_in = |c: char| match class {
                "0-9" => c.is_ascii_digit(),
                "0-9a-f" => c.is_ascii_digit() || ('a'..='f').contains(&c),
                other => panic!("no class {other}"),
            };
            let len = rest.find(|c| !is_in(c)).unwrap_or(rest.len());
            let (wanted, after) = match after.strip_prefix('+') {
                Some(after) => (len.max(1), after),
                None => {
                    let (number, after) = after.strip_prefix('{').unwrap().split_once('}').unwrap();
                    (number.parse().unwrap(), after)
                }
            };
            if len != wanted {
                return false;
            }
            (rest, pattern) = (&rest[len..], after);
        } else {
            let literal = pattern.trim_start_matches('\\').chars().next().unwrap();
            pattern = &pattern[pattern.find(literal).unwrap() + literal.len_utf8()..];
            let Some(after) = rest.strip_prefix(literal) else { return false };
            rest = after;
        }
    }
    rest.is_empty()
}

/// What a request gets must be what the document says of it.
fn check(
    document: &Value,
    addr: &str,
    template: &str,
    method: &str,
    target: &str,
    headers: &[&str],
    body: &[u8],
) -> u16 {
    let answer = request(addr, method, target, headers, body);
    let (status, shown) = (answer.status(), format!("{method} {target} {headers:?}: {}", answer.status()));
    let operation = &document["paths"][template][method.to_ascii_lowercase()];
    let response = resolved(document, &operation["responses"][status.to_string()]);
    assert!(response.is_object(), "{shown} is not in the document");
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let header = resolved(document, header);
        let value = answer.header(&name.to_ascii_lowercase());
        assert!(value.is_some() || header["required"] != true, "{shown} has no {name}");
        let value = value.map_or(Value::Null, Value::from);
        if value.is_string() {
            assert_eq!(violations(document, &header["schema"], &value, name), Vec::<String>::new(), "{shown}");
        }
    }
    let content = response["content"].as_object();
    if let Some(schema) = content.and_then(|content| content.get("application/json")).map(|json| &json["schema"]) {
        assert_eq!(answer.header("content-type"), Some("application/json"), "{shown}");
        assert_eq!(violations(document, schema, &answer.json(), "answer"), Vec::<String>::new(), "{shown}");
    }
    assert!(content.is_some() || answer.body.is_empty(), "{shown} has a body: {}", answer.text());
    let keeps = document["paths"][template][method.to_ascii_lowercase()]["responses"]["200"]["description"].as_str();
    if status == 200 && keeps == Some("no-store") {
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{shown}");
    }
    status
}

/// Leaves a large content under the key `cut` behind, of which not all has come.
pub(crate) fn break_an_upload_off(addr: &str) {
    let mut stream = TcpStream::connect(addr).unwrap();
    let head = "PUT /v1/config/etc/cut HTTP/1.1\r\nHost: x\r\nIdempotency-Key: cut\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&[7; 90_000]).unwrap();
    drop(stream);
    let end = Instant::now() + Duration::from_secs(10);
    while get(addr, "/v1/uploads?key=cut").status() != 200 {
        assert!(Instant::now() < end, "nothing is kept of an upload that broke off");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn everything_is_answered_as_the_document_says() {
    let pair = Pair::start(11, "content = \"100KiB\"");
    let addr = pair.publish();
    let served = get(&addr, "/v1/openapi.json");
    assert_eq!(served.header("cache-control"), Some("public, max-age=3600"));
    let document = served.json();
    let published = publish(&addr, "etc/motd", b"hello");
    break_an_upload_off(&addr);
    let uid = published.header("acms-uid").unwrap();
    let object = format!("/v1/objects/{}", Hash::of(b"hello"));
    let snapshot = get(&addr, "/v1/snapshot").json();
    let cursor = format!("/v1/changes/2.{}.0", snapshot["incarnation"].as_str().unwrap());
    let huge = vec![0; 200_000];
    let missing = format!("/v1/objects/{}", Hash::of(b"not here"));
    let under = format!("{cursor}/etc");
    let publication = format!("/v1/publications/{uid}");
    let tag = format!("If-None-Match: \"{uid}\"");
    let object_tag = format!("If-None-Match: \"{}\"", Hash::of(b"hello"));
    let (tag, object_tag) = ([tag.as_str()], [object_tag.as_str()]);
    let config = "/v1/config/{path}";
    // (path of the document, method, target, headers, body, status)
    type Try<'a> = (&'a str, &'a str, &'a str, &'a [&'a str], &'a [u8], u16);
    let tries: Vec<Try<'_>> = vec![
        ("/v1/snapshot", "GET", "/v1/snapshot", &[], b"", 200),
        ("/v1/changes/{cursor}", "GET", &cursor, &[], b"", 200),
        ("/v1/changes/{cursor}", "GET", "/v1/changes/x", &[], b"", 400),
        ("/v1/changes/{cursor}/{prefix}", "GET", &under, &[], b"", 200),
        ("/v1/changes/{cursor}/{prefix}", "GET", "/v1/changes/1.0-1.0/..", &[], b"", 400),
        ("/v1/objects/{hash}", "GET", &object, &[], b"", 200),
        ("/v1/objects/{hash}", "GET", &object, &["Range: bytes=0-1"], b"", 206),
        ("/v1/objects/{hash}", "GET", &object, &["Range: bytes=9-"], b"", 416),
        ("/v1/objects/{hash}", "GET", &object, &object_tag, b"", 304),
        ("/v1/objects/{hash}", "GET", &object, &["If-Match: \"x\""], b"", 412),
        ("/v1/objects/{hash}", "GET", &missing, &[], b"", 404),
        ("/v1/objects/{hash}", "GET", "/v1/objects/x", &[], b"", 400),
        (config, "GET", "/v1/config/etc/motd", &[], b"", 200),
        (config, "GET", "/v1/config/etc/motd", &tag, b"", 304),
        (config, "GET", "/v1/config/etc/motd", &["If-Match: \"x\""], b"", 412),
        (config, "GET", "/v1/config/absent", &[], b"", 404),
        (config, "GET", "/v1/config/..", &[], b"", 400),
        (config, "PUT", "/v1/config/etc/run", &["ACMS-Flags: executable", "Idempotency-Key: k"], b"#!", 201),
        (config, "PUT", "/v1/config/etc/run", &["Idempotency-Key: k"], b"other", 409),
        (config, "PUT", "/v1/config/..", &[], b"x", 400),
        (config, "PUT", "/v1/config/etc/run", &["Content-Encoding: br"], b"x", 415),
        (config, "PUT", "/v1/config/etc/run", &["If-Match: *"], b"x", 501),
        (config, "PUT", "/v1/config/etc/run", &["Expect: more"], b"x", 417),
        (config, "PUT", "/v1/config/etc/run", &[], &huge, 413),
        (config, "DELETE", "/v1/config/etc/run", &[], b"", 201),
        (config, "DELETE", "/v1/config/etc/run", &["If-Match: *"], b"", 501),
        ("/v1/history/{path}", "GET", "/v1/history/etc/motd", &[], b"", 200),
        ("/v1/history/{path}", "GET", "/v1/history/absent", &[], b"", 404),
        ("/v1/history/{path}", "GET", "/v1/history/..", &[], b"", 400),
        ("/v1/uploads", "GET", "/v1/uploads?key=cut", &[], b"", 200),
        ("/v1/uploads", "GET", "/v1/uploads?key=none", &[], b"", 404),
        ("/v1/uploads", "GET", "/v1/uploads", &[], b"", 400),
        ("/v1/publications/{uid}", "GET", &publication, &[], b"", 200),
        ("/v1/publications/{uid}", "GET", "/v1/publications/1.1.0", &[], b"", 404),
        ("/v1/publications/{uid}", "GET", "/v1/publications/1", &[], b"", 400),
        ("/v1/publications", "GET", "/v1/publications?key=k", &[], b"", 200),
        ("/v1/publications", "GET", "/v1/publications?key=none", &[], b"", 404),
        ("/v1/publications", "GET", "/v1/publications", &[], b"", 400),
        ("/v1/index", "GET", "/v1/index?limit=1", &[], b"", 200),
        ("/v1/index", "GET", "/v1/index?limit=x", &[], b"", 400),
        ("/v1/index/{prefix}", "GET", "/v1/index/etc", &[], b"", 200),
        ("/v1/status", "GET", "/v1/status", &[], b"", 200),
        ("/v1/openapi.json", "GET", "/v1/openapi.json", &[], b"", 200),
        ("/metrics", "GET", "/metrics", &[], b"", 200),
        ("/healthz", "GET", "/healthz", &[], b"", 200),
    ];
    for (template, method, target, headers, body, status) in &tries {
        assert_eq!(check(&document, &addr, template, method, target, headers, body), *status, "{method} {target}");
    }
    for (template, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys().filter(|key| *key != "parameters") {
            let is_it = |t: &&Try<'_>| t.0 == template && t.1.eq_ignore_ascii_case(method) && t.5 < 300;
            assert!(tries.iter().any(|t| is_it(&t)), "nothing tries {method} {template}");
        }
    }
    assert_eq!(check(&document, &pair.deliver(), config, "PUT", "/v1/config/a", &[], b"x"), 405);
}

#[test]
fn the_check_itself_finds_what_is_wrong() {
    let document: Value = serde_json::from_str(acms_engine::runtime::http::target::OPENAPI).unwrap();
    let snapshot = |change: fn(&mut Value)| {
        let hash = "0".repeat(64);
        let mut value = serde_json::json!({
            "cluster": "c", "sp": 1, "incarnation": "0-1", "sequence": 1, "root": hash, "as_of_us": 0, "issued_at_us": 1
        });
        change(&mut value);
        violations(&document, &document["components"]["schemas"]["Snapshot"], &value, "").len()
    };
    assert_eq!(snapshot(|_| {}), 0);
    assert_eq!(snapshot(|value| value["sp"] = "1".into()), 1);
    assert_eq!(snapshot(|value| value["sp"] = 0.into()), 1);
    assert_eq!(snapshot(|value| value["root"] = "abc".into()), 1);
    assert_eq!(snapshot(|value| value["incarnation"] = "0-x".into()), 1);
    assert_eq!(snapshot(|value| value["more"] = 1.into()), 1);
    assert_eq!(snapshot(|value| drop(value.as_object_mut().unwrap().remove("cluster"))), 1);
}
