//! Tokens that are made here, one thing wrong with each, and some that another implementation has made.

use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use ring::{digest, hmac};
use serde_json::json;

use super::made::*;
use super::*;

const SECRET: &str = "bbe7d157-a253-4094-9759-06a8236543f9";
const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn signed_as(header: &Value, claims: &Value, secret: impl AsRef<[u8]>) -> String {
    let message = message(header, claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
    format!("{message}.{signature}")
}

fn signed(claims: &Value) -> String {
    signed_as(&json!({ "alg": "HS256" }), claims, SECRET)
}

fn jwt() -> Jwt {
    Jwt::hs256(SECRET).unwrap().leeway(Duration::ZERO)
}

fn said<T>(result: Result<T, AuthError>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(AuthError::Expired) => "expired".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn check(jwt: &Jwt, claims: Value, expected: &str) {
    let found = said(jwt.connection_at(&signed(&claims), at(NOW)));
    assert!(found.ends_with(expected), "{claims}: {found}");
}

#[test]
fn the_claims_become_an_identity() {
    let claims = json!({
        "sub": "ada", "exp": NOW + 60, "nbf": NOW - 1, "iat": NOW, "info": { "name": "Ada" }, "tenant": "acme",
        "roles": ["guard"], "jti": "1", "iss": "me",
    });
    let identity = jwt().connection_at(&signed(&claims), at(NOW)).unwrap();
    let expected = Identity::user("ada")
        .with_tenant("acme")
        .with_info(json!({ "name": "Ada" }))
        .with_claim("roles", ["guard"])
        .with_claim("jti", "1")
        .with_claim("iss", "me")
        .expiring_at(at(NOW + 60));
    assert_eq!(identity, expected);
    let bare = jwt().connection_at(&signed(&json!({ "sub": "ada", "info": null })), at(NOW)).unwrap();
    assert_eq!(bare, Identity::user("ada"));
    let number = jwt()
        .tenant_claim("org")
        .connection_at(&signed(&json!({ "sub": "a", "org": 7, "tenant": "x" })), at(NOW));
    assert_eq!(number.unwrap(), Identity::user("a").with_tenant("7").with_claim("tenant", "x"));
}

#[test]
fn tokens_of_another_implementation_work() {
    let keys = [
        (Key::hs256(SECRET), HS256_TOKEN),
        (Key::rs256(RS256_PEM), RS256_TOKEN),
        (Key::rs256(RS256_PKCS1_PEM), RS256_TOKEN),
        (Key::es256(ES256_PEM), ES256_TOKEN),
    ];
    let tokens = [HS256_TOKEN, RS256_TOKEN, ES256_TOKEN, PS256_TOKEN];
    for (key, own) in keys {
        let key = key.unwrap();
        for token in tokens {
            let found = Jwt::new(key.clone()).connection(token);
            if token == own {
                assert_eq!(found.unwrap().info, Some(json!({ "name": "Ada" })), "{key:?}");
                // The first letter of the signature: the last may have bits that do not count.
                let place = token.rfind('.').unwrap() + 1;
                let other = if token.as_bytes()[place] == b'A' { "B" } else { "A" };
                let mut token = token.to_owned();
                token.replace_range(place..=place, other);
                assert!(
                    said(Jwt::new(key.clone()).connection(&token)).ends_with("not that of the key"),
                    "{key:?}"
                );
            } else {
                assert!(said(found).contains("algorithm"), "{key:?} with {token}");
            }
        }
    }
}

#[test]
fn a_token_does_not_choose_its_algorithm() {
    let claims = json!({ "sub": "ada" });
    // The oldest of all: the public key, which everybody has, as the secret of an HMAC.
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    for secret in [RS256_PEM.to_owned(), RS256_PEM.trim().to_owned()] {
        let token = signed_as(&header, &claims, secret);
        assert!(said(Jwt::rs256(RS256_PEM).unwrap().connection(&token)).contains("algorithm"));
    }
    for alg in ["none", "None", "NONE", "", "HS384", "HS512", "RS256", "EdDSA"] {
        let message = message(&json!({ "alg": alg }), &claims);
        let signature = signed_as(&json!({ "alg": alg }), &claims, SECRET);
        for token in [format!("{message}."), signature] {
            assert!(said(jwt().connection(&token)).contains("algorithm"), "{alg}: {token}");
        }
    }
    assert!(said(jwt().connection(&format!("{}.", message(&header, &claims)))).contains("signature"));
    let critical = signed_as(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims, SECRET);
    assert!(said(jwt().connection(&critical)).contains("critical"));
    // A key that a token brings along is not looked at.
    let own = json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": URL_SAFE_NO_PAD.encode([1; 32]) } });
    assert!(said(jwt().connection(&signed_as(&own, &claims, [1; 32]))).contains("signature"));
}

#[test]
fn a_kid_chooses_the_key() {
    let random = SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap();
    let prefix = [
        0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d,
        3, 1, 7, 3, 0x42, 0,
    ];
    let info =
        base64::engine::general_purpose::STANDARD.encode([&prefix[..], pair.public_key().as_ref()].concat());
    let es256 =
        Key::es256(format!("-----BEGIN PUBLIC KEY-----\r\n{info}\r\n-----END PUBLIC KEY-----\r\n")).unwrap();
    let by_es256 = |header| {
        let message = message(&header, &json!({ "sub": "ada" }));
        let signature = pair.sign(&random, message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let by_secret = |header, secret: &[u8]| signed_as(&header, &json!({ "sub": "ada" }), secret);

    let jwt = jwt().with_key("ec", es256.clone()).with_key("old", Key::hs256([1; 32]).unwrap());
    let ask = |token: String| said(jwt.connection(&token));
    assert_eq!(ask(by_es256(json!({ "alg": "ES256", "kid": "ec" }))), "ok");
    assert_eq!(ask(by_secret(json!({ "alg": "HS256", "kid": "old" }), &[1; 32])), "ok");
    assert_eq!(ask(by_secret(json!({ "alg": "HS256" }), SECRET.as_bytes())), "ok");
    assert_eq!(ask(by_secret(json!({ "alg": "HS256", "kid": "new" }), SECRET.as_bytes())), "ok");
    assert!(ask(by_secret(json!({ "alg": "HS256", "kid": "old" }), SECRET.as_bytes())).contains("signature"));
    assert!(ask(by_es256(json!({ "alg": "ES256" }))).contains("algorithm"));
    assert!(ask(by_secret(json!({ "alg": "HS256", "kid": "ec" }), SECRET.as_bytes())).contains("algorithm"));

    let named = Jwt::by_kid().with_key("ec", es256);
    assert_eq!(said(named.connection(&by_es256(json!({ "alg": "ES256", "kid": "ec" })))), "ok");
    assert!(said(named.connection(&by_es256(json!({ "alg": "ES256", "kid": "x" })))).contains("no key"));
    assert!(said(named.connection(&by_es256(json!({ "alg": "ES256" })))).contains("no key"));
}

#[test]
fn a_token_has_its_time() {
    let with = |name: &str, value: Value| json!({ "sub": "ada", name: value });
    check(&jwt(), with("exp", json!(NOW + 1)), "ok");
    check(&jwt(), with("exp", json!(NOW)), "expired");
    check(&jwt(), with("exp", json!(NOW as f64 + 1.5)), "ok");
    check(&jwt(), with("exp", json!(0)), "expired");
    check(&jwt(), with("nbf", json!(NOW)), "ok");
    check(&jwt(), with("nbf", json!(NOW + 1)), "its `nbf` is still to come");
    check(&jwt(), with("iat", json!(NOW + 60)), "ok");
    check(&jwt(), with("iat", json!(NOW + 61)), "is a clock wrong?");
    for value in [json!("1"), json!(null), json!(-1), json!([1]), json!(u64::MAX), json!(1e300)] {
        for name in ["exp", "nbf", "iat"] {
            check(&jwt(), with(name, value.clone()), &format!("its `{name}` is not a time"));
        }
    }
    let late = jwt().leeway(Duration::from_secs(5));
    check(&late, with("exp", json!(NOW - 4)), "ok");
    check(&late, with("exp", json!(NOW - 5)), "expired");
    check(&late, with("nbf", json!(NOW + 5)), "ok");
    let identity = late.connection_at(&signed(&with("exp", json!(NOW - 4))), at(NOW)).unwrap();
    assert_eq!(identity.expires_at, Some(at(NOW + 1)), "it ends when it would be refused");
    check(&jwt().leeway(Duration::MAX), with("exp", json!(NOW - 3_600)), "expired");
    assert!(
        matches!(
            jwt().issuer("me").connection_at(&signed(&with("exp", json!(0))), at(NOW)),
            Err(AuthError::Invalid(_))
        ),
        "`expired` is said of a token that is fine otherwise"
    );
}

#[test]
fn a_token_is_for_us() {
    let with = |name: &str, value: Value| json!({ "sub": "ada", name: value });
    let issued = jwt().issuer("me").issuer("you");
    check(&issued, with("iss", json!("you")), "ok");
    for claims in [with("iss", json!("they")), with("iss", json!(["me"])), with("x", json!("me"))] {
        check(&issued, claims, "its `iss` is not one of those that are asked for");
    }
    let ours = jwt().audience("gateway").audience("chat");
    check(&ours, with("aud", json!("chat")), "ok");
    check(&ours, with("aud", json!(["x", "gateway"])), "ok");
    for claims in
        [with("aud", json!("x")), with("aud", json!([])), with("aud", json!(null)), with("x", json!(1))]
    {
        check(&ours, claims, "its `aud` is not one of those that are asked for");
    }
    check(&jwt(), with("aud", json!("billing")), "`Jwt::audience` says which is ours");
}

#[test]
fn a_user_is_named_unless_nobody_need_be() {
    let anonymous = jwt().allow_anonymous();
    for claims in [json!({}), json!({ "sub": "" })] {
        check(&jwt(), claims.clone(), "`allow_anonymous` was not called");
        assert!(anonymous.connection_at(&signed(&claims), at(NOW)).unwrap().is_anonymous());
    }
    check(&anonymous, json!({ "sub": 7 }), "its `sub` is not a text");
    check(&anonymous, json!({ "sub": null }), "its `sub` is not a text");
    for tenant in [json!(""), json!(1.5), json!(["acme"]), json!(true)] {
        check(&jwt(), json!({ "sub": "ada", "tenant": tenant }), "neither a text nor a whole number");
    }
    check(&jwt(), json!(["sub"]), "its claims are no object");
}

#[test]
fn one_kind_of_token_is_not_the_other() {
    let connection = signed(&json!({ "sub": "ada" }));
    let claims = json!({ "sub": "ada", "channel": "chat:7", "exp": NOW + 9, "info": 1, "x": 2 });
    let subscription = signed(&claims);
    assert!(said(jwt().connection_at(&subscription, at(NOW))).ends_with("it is the token of a subscription"));
    assert!(said(jwt().subscription_at(&connection, "ada", at(NOW))).contains("no `channel`"));
    let token = jwt().subscription_at(&subscription, "ada", at(NOW)).unwrap();
    let claims = json!({ "x": 2 }).as_object().unwrap().clone();
    let expected = SubscriptionToken {
        channel: "chat:7".to_owned(),
        info: Some(json!(1)),
        expires_at: Some(at(NOW + 9)),
        claims,
    };
    assert_eq!(token, expected);
    assert_eq!(said(jwt().subscription_at(&subscription, "ada", at(NOW + 9))), "expired");
    for user in ["bob", ""] {
        assert!(said(jwt().subscription_at(&subscription, user, at(NOW))).contains("not the user"));
    }
    let of_nobody = signed(&json!({ "channel": "chat:7" }));
    assert_eq!(said(jwt().subscription_at(&of_nobody, "", at(NOW))), "ok");
    assert!(said(jwt().subscription_at(&of_nobody, "ada", at(NOW))).contains("not the user"));
    for channel in [json!(""), json!(null), json!(7)] {
        let token = signed(&json!({ "sub": "ada", "channel": channel }));
        assert_ne!(said(jwt().connection_at(&token, at(NOW))), "ok");
        assert_ne!(said(jwt().subscription_at(&token, "ada", at(NOW))), "ok");
    }
}

#[test]
fn a_key_that_is_none_is_refused_when_it_is_given() {
    let private = RS256_PEM.replace("PUBLIC", "PRIVATE");
    let cut = RS256_PEM.replace("Ajs7", "");
    let twice = format!("{RS256_PEM}{RS256_PEM}");
    let body: String = RS256_PEM.lines().filter(|line| !line.starts_with('-')).collect();
    // secp256k1, whose points are as long as those of P-256.
    let info = [
        0x30, 0x56, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x0a, 3,
        0x42, 0, 4,
    ];
    let info = base64::engine::general_purpose::STANDARD.encode([&info[..], &[1; 64]].concat());
    let other_curve = format!("-----BEGIN PUBLIC KEY-----\n{info}\n-----END PUBLIC KEY-----");
    for (error, why) in [
        (Key::es256(other_curve), "P-256"),
        (Key::hs256("short"), "32 bytes"),
        (Key::rs256(ES256_PEM), "another"),
        (Key::rs256(RSA_1024_PEM), "2048"),
        (Key::es256(RS256_PEM), "another"),
        (Key::es256(P384_PEM), "P-256"),
        (Key::es256(RS256_PKCS1_PEM), "P-256"),
        (Key::rs256(&private), "this is a \"PRIVATE KEY\""),
        (Key::rs256(&twice), "one public key"),
        (Key::rs256(""), "one public key"),
        (Key::rs256([0xff, 0xfe]), "one public key"),
        (Key::rs256(cut.replacen("MIIB", "MIIC", 1)), "RS256"),
    ] {
        let error = error.unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
        assert!(!error.contains(&body[20..40]), "what was given is not in it: {error}");
    }
}

#[test]
fn no_secret_is_printed() {
    let jwt = jwt().with_key("old", Key::rs256(RS256_PEM).unwrap()).issuer("me");
    let text = format!("{jwt:?} {jwt:#?}");
    assert!(text.contains("HS256") && text.contains("old") && text.contains("me"), "{text}");
    let bytes = format!("{:?}", SECRET.as_bytes());
    let digest = format!("{:?}", digest::digest(&digest::SHA256, SECRET.as_bytes()));
    for secret in [SECRET, &bytes[1..20], &digest[8..30]] {
        assert!(!text.contains(secret), "{text}");
    }
    let error = said(jwt.connection(&signed(&json!({ "sub": "hush", "iss": "hush" }))));
    assert!(!error.contains("hush"), "{error}");
}

proptest! {
    #[test]
    fn any_text_is_refused(text in "[ -~]{0,60}", dots in 0_usize..5, any in any::<String>()) {
        let jwt = jwt().with_key("x", Key::es256(ES256_PEM).unwrap());
        for text in [text.replace(' ', ".") + &".".repeat(dots), any] {
            prop_assert!(matches!(jwt.connection(&text), Err(AuthError::Invalid(_))));
            prop_assert!(matches!(jwt.subscription(&text, ""), Err(AuthError::Invalid(_))));
        }
    }

    #[test]
    fn any_header_and_claims_are_taken_apart(header in any::<Vec<u8>>(), claims in any::<Vec<u8>>(), json: bool) {
        let header = if json { br#"{"alg":"HS256"}"#.to_vec() } else { header };
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes()));
        prop_assert_ne!(said(jwt().connection(&format!("{message}.{signature}"))), "ok");
    }

    #[test]
    fn any_change_of_a_token_is_noticed(place in 0_usize..400, bit in 0_u32..7) {
        for (jwt, token) in [(jwt(), HS256_TOKEN), (Jwt::es256(ES256_PEM).unwrap(), ES256_TOKEN)] {
            let mut bytes = token.as_bytes().to_vec();
            let place = place % bytes.len();
            bytes[place] ^= 1 << bit;
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert!(jwt.connection(token).is_ok());
            prop_assert!(matches!(jwt.connection(&changed), Err(AuthError::Invalid(_))), "{changed}");
        }
    }

    #[test]
    fn any_bytes_are_no_key(bytes in any::<Vec<u8>>(), place in 0_usize..500, byte: u8) {
        prop_assert!(Key::rs256(&bytes).is_err());
        prop_assert!(Key::es256(&bytes).is_err());
        let mut pem = RS256_PEM.as_bytes().to_vec();
        let place = place % pem.len();
        pem[place] = byte;
        if let Ok(key) = Key::rs256(pem) {
            let _one_or_the_other = Jwt::new(key).connection(RS256_TOKEN);
        }
    }
}
