//! What a client sends: JSON bodies, with the place of what is wrong in them, and JSON merge patches.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::problem::Problem;

/// The body of a request that says to be JSON. A form on another site cannot say so, which is what keeps it from changing
/// anything with the cookies of a user.
pub(super) async fn read(request: Request) -> Result<Bytes, Problem> {
    if !is_json(request.headers()) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body has to be JSON; send it as `Content-Type: application/json`",
        ));
    }
    Bytes::from_request(request, &()).await.map_err(|rejection: BytesRejection| {
        let status = rejection.status();
        let detail = match status {
            StatusCode::PAYLOAD_TOO_LARGE => "the body is too large",
            _ => "the body broke off",
        };
        Problem::new(status, detail)
    })
}

/// Reads a JSON text: 400 if it is none, 422 if it is not what is wanted.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        match error.inner().classify() {
            serde_json::error::Category::Data => unfit(&path, error.inner()),
            _ => broken(error.inner()),
        }
    })?;
    deserializer.end().map_err(|error| broken(&error))?;
    Ok(value)
}

/// Turns JSON into what is wanted, or says where it is not.
pub(super) fn convert<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| unfit(&error.path().to_string(), error.inner()))
}

fn broken(error: &serde_json::Error) -> Problem {
    Problem::bad_request(format!("the body is not JSON: {error}"))
}

fn unfit(path: &str, error: &serde_json::Error) -> Problem {
    let at = if path == "." { String::new() } else { format!(" at `{path}`") };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, format!("the JSON does not fit{at}: {error}"))
}

/// RFC 7396, section 2: members that are null are removed, objects are merged, all else is replaced.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(&name);
        } else {
            merge(target.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// `application/json`, and what is called `…+json`, such as `application/merge-patch+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(content_type)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    media == "application/json" || media.starts_with("application/") && media.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn patches_merge_as_the_rfc_says() {
        for (original, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"a":"foo"}), json!("bar"), json!("bar")),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            let mut merged = original.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, result, "{original} with {patch}");
        }
    }

    #[test]
    fn what_is_wrong_says_where() {
        #[derive(Debug, serde::Deserialize)]
        struct Camera {
            #[expect(dead_code)]
            tags: Vec<u8>,
        }
        let problem = |text: &str| parse::<Camera>(text.as_bytes()).unwrap_err();
        let broken = problem(r#"{"tags":[1,}"#);
        assert_eq!(broken, Problem::bad_request("the body is not JSON: expected value at line 1 column 12"));
        assert_eq!(problem("").status(), StatusCode::BAD_REQUEST);
        assert_eq!(problem(r#"{"tags":[]} x"#).status(), StatusCode::BAD_REQUEST);
        let unfit = problem(r#"{"tags":[1,"2"]}"#);
        let text =
            "the JSON does not fit at `tags[1]`: invalid type: string \"2\", expected u8 at line 1 column 14";
        assert_eq!(unfit, Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
        let missing = convert::<Camera>(json!({})).unwrap_err();
        let text = "the JSON does not fit: missing field `tags`";
        assert_eq!(missing, Problem::new(StatusCode::UNPROCESSABLE_ENTITY, text));
    }

    #[test]
    fn json_says_that_it_is() {
        for (content_type, expected) in [
            ("application/json", true),
            ("application/json; charset=utf-8", true),
            ("application/merge-patch+json", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("text/x+json", false),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type.parse().unwrap())]);
            assert_eq!(is_json(&headers), expected, "{content_type}");
        }
        assert!(!is_json(&HeaderMap::new()));
    }
}
