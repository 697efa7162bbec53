use std::sync::LazyLock;

use super::*;

static EDGE: LazyLock<EdgeKey> = LazyLock::new(|| EdgeKey::generate(2048).unwrap());
static OTHER: LazyLock<EdgeKey> = LazyLock::new(|| EdgeKey::generate(2048).unwrap());

const KEY: &[u8] = b"-- a private key in PKCS #8 --";
const CERTIFICATE: [u8; 32] = [1; 32];
const PUBLIC_KEY: [u8; 32] = [2; 32];

fn name(text: &str) -> Hostname {
    Hostname::parse(text).unwrap()
}

fn recipient(key: &EdgeKey) -> Recipient {
    Recipient::from_pem(&key.public_pem().unwrap()).unwrap()
}

fn sealed_for(domain: &str, to: &[&EdgeKey]) -> Sealed {
    let to: Vec<_> = to.iter().map(|k| recipient(k)).collect();
    seal(KEY, &name(domain), Bound::Certificate(CERTIFICATE), &to).unwrap()
}

fn open_for(sealed: &Sealed, key: &EdgeKey, domain: &str) -> Result<Vec<u8>, OpenError> {
    let domain = name(domain);
    let expected = Expected { domain: &domain, certificate: CERTIFICATE, public_key: &|| Some(PUBLIC_KEY) };
    open(sealed, key, &expected).map(|k| k.to_vec())
}

#[test]
fn each_recipient_opens_what_was_sealed() {
    let sealed = sealed_for("a.example", &[&EDGE, &OTHER]);
    let text = serde_json::to_string(&sealed).unwrap();
    assert!(!text.contains("PKCS #8"));
    let back: Sealed = serde_json::from_str(&text).unwrap();
    assert_eq!(open_for(&back, &EDGE, "a.example").unwrap(), KEY);
    assert_eq!(open_for(&back, &OTHER, "a.example").unwrap(), KEY);
}

#[test]
fn each_sealing_uses_a_fresh_key_and_nonce() {
    let (one, two) = (sealed_for("a.example", &[&EDGE]), sealed_for("a.example", &[&EDGE]));
    assert_ne!(one.iv, two.iv);
    assert_ne!(one.ciphertext, two.ciphertext);
    assert_ne!(one.recipients[0].encrypted_key, two.recipients[0].encrypted_key);
}

#[test]
fn kid_is_the_same_on_both_sides() {
    assert_eq!(recipient(&EDGE).kid(), EDGE.kid());
    assert_eq!(EDGE.kid().len(), 43);
}

#[test]
fn refuses_a_bundle_moved_to_another_domain() {
    let mut sealed = sealed_for("a.example", &[&EDGE]);
    assert_eq!(
        open_for(&sealed, &EDGE, "b.example"),
        Err(OpenError::OtherDomain(name("a.example"), name("b.example")))
    );
    // Rewriting the claim does not help: it is authenticated.
    sealed.aad = sealed_for("b.example", &[&EDGE]).aad;
    assert_eq!(open_for(&sealed, &EDGE, "b.example"), Err(OpenError::Broken));
}

#[test]
fn refuses_another_certificate_of_the_same_domain() {
    let domain = name("a.example");
    let sealed = sealed_for("a.example", &[&EDGE]);
    let expected = Expected { domain: &domain, certificate: [9; 32], public_key: &|| Some(PUBLIC_KEY) };
    assert_eq!(open(&sealed, &EDGE, &expected).unwrap_err(), OpenError::OtherCertificate(domain));
}

#[test]
fn a_key_sealed_before_its_certificate_is_bound_to_the_public_key() {
    let domain = name("a.example");
    let sealed = seal(KEY, &domain, Bound::PublicKey(PUBLIC_KEY), &[recipient(&EDGE)]).unwrap();
    assert_eq!(open_for(&sealed, &EDGE, "a.example").unwrap(), KEY);
    let expected = Expected { domain: &domain, certificate: CERTIFICATE, public_key: &|| Some([9; 32]) };
    assert!(matches!(open(&sealed, &EDGE, &expected), Err(OpenError::OtherCertificate(_))));
}

#[test]
fn refuses_what_is_not_for_this_edge() {
    let mut sealed = sealed_for("a.example", &[&OTHER]);
    assert_eq!(open_for(&sealed, &EDGE, "a.example"), Err(OpenError::NotForUs(EDGE.kid().to_owned())));
    sealed.recipients[0].header.kid = EDGE.kid().to_owned();
    assert_eq!(open_for(&sealed, &EDGE, "a.example"), Err(OpenError::Broken));
}

#[test]
fn refuses_other_algorithms_and_headers() {
    let protect = |json: &str| {
        let mut sealed = sealed_for("a.example", &[&EDGE]);
        sealed.protected = URL_SAFE_NO_PAD.encode(json);
        open_for(&sealed, &EDGE, "a.example")
    };
    for json in [
        r#"{"alg":"RSA1_5","enc":"A256GCM"}"#,
        r#"{"alg":"dir","enc":"A256GCM"}"#,
        r#"{"alg":"RSA-OAEP-256","enc":"A128GCM"}"#,
    ] {
        assert!(matches!(protect(json), Err(OpenError::Algorithm(_))), "{json}");
    }
    for json in [r#"{"alg":"RSA-OAEP-256","enc":"A256GCM","zip":"DEF"}"#, r#"{"enc":"A256GCM"}"#, "{", ""] {
        assert_eq!(protect(json), Err(OpenError::Malformed("protected header")), "{json}");
    }
    assert_eq!(protect(r#"{"alg":"RSA-OAEP-256","enc":"A256GCM"}"#), Err(OpenError::Broken));
}

#[test]
fn any_flipped_bit_is_noticed() {
    let sealed = sealed_for("a.example", &[&EDGE]);
    let flip = |text: &mut String| {
        let mut bytes = URL_SAFE_NO_PAD.decode(&*text).unwrap();
        bytes[0] ^= 1;
        *text = URL_SAFE_NO_PAD.encode(bytes);
    };
    for field in 0..5 {
        let mut altered = sealed.clone();
        match field {
            0 => flip(&mut altered.iv),
            1 => flip(&mut altered.ciphertext),
            2 => flip(&mut altered.tag),
            3 => flip(&mut altered.recipients[0].encrypted_key),
            _ => altered.protected.push('A'),
        }
        assert!(open_for(&altered, &EDGE, "a.example").is_err(), "field {field}");
    }
}

#[test]
fn limits_are_kept() {
    let domain = name("a.example");
    let to = recipient(&EDGE);
    let bound = Bound::Certificate(CERTIFICATE);
    let max = vec![7; PRIVATE_KEY_BYTES_MAX];
    let sealed = seal(&max, &domain, bound, std::slice::from_ref(&to)).unwrap();
    assert_eq!(open_for(&sealed, &EDGE, "a.example").unwrap(), max);
    assert!(matches!(
        seal(&[7; PRIVATE_KEY_BYTES_MAX + 1], &domain, bound, std::slice::from_ref(&to)),
        Err(SealError::TooLarge(_))
    ));
    assert!(seal(KEY, &domain, bound, &vec![to.clone(); RECIPIENTS_MAX]).is_ok());
    assert!(matches!(seal(KEY, &domain, bound, &vec![to; RECIPIENTS_MAX + 1]), Err(SealError::TooManyRecipients(_))));
    assert!(matches!(seal(KEY, &domain, bound, &[]), Err(SealError::NoRecipient)));
}

#[test]
fn certservice_refuses_a_private_key_and_bad_sizes() {
    assert!(matches!(Recipient::from_pem(&EDGE.private_pem().unwrap()), Err(RecipientError::Private)));
    assert!(matches!(Recipient::from_pem("nonsense"), Err(RecipientError::Malformed)));
    assert!(matches!(EdgeKey::generate(1024), Err(KeyError::Size(1024))));
}

#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", *EDGE);
    assert!(shown.contains(EDGE.kid()) && shown.len() < 120, "{shown}");
}

#[test]
fn a_ticket_key_opens_under_its_name_only() {
    let (secret, one, other) = ([7; 32], KeyName([1; 16]), KeyName([2; 16]));
    let sealed = seal_ticket_key(&secret, &one, &[recipient(&EDGE)]).unwrap();
    assert_eq!(*open_ticket_key(&sealed, &EDGE, &one).unwrap(), secret);
    assert_eq!(open_ticket_key(&sealed, &EDGE, &other), Err(OpenError::OtherTicketKey));
    assert!(matches!(open_ticket_key(&sealed, &OTHER, &one), Err(OpenError::NotForUs(_))));
    // Nor is it taken for a certificate's key, or one of those for it.
    assert!(matches!(open_for(&sealed, &EDGE, "a.example"), Err(OpenError::Malformed(_))));
    let of_certificate = sealed_for("a.example", &[&EDGE]);
    assert_eq!(open_ticket_key(&of_certificate, &EDGE, &one), Err(OpenError::OtherTicketKey));
}

fn wrap_key(key: &EdgeKey) -> WrapKey {
    WrapKey::from_pem(key.public_pem().unwrap().as_bytes()).unwrap()
}

#[test]
fn what_one_edge_opens_it_wraps_for_another_and_nothing_else_changes() {
    let sealed = sealed_for("a.example", &[&EDGE]);
    let entries = rewrap(&sealed, &EDGE, &[wrap_key(&OTHER), wrap_key(&EDGE)]).unwrap();
    let kids: Vec<_> = entries.iter().map(|entry| entry.header.kid.as_str()).collect();
    assert_eq!(kids, [OTHER.kid()], "none for those that it is sealed to already");
    let mut more = sealed.clone();
    more.recipients.extend(entries);
    assert_eq!(open_for(&more, &OTHER, "a.example").unwrap(), KEY);
    assert_eq!(open_for(&more, &EDGE, "a.example").unwrap(), KEY);
    assert_eq!(Sealed { recipients: sealed.recipients.clone(), ..more }, sealed);
}

#[test]
fn a_content_key_that_is_not_known_to_be_right_is_not_passed_on() {
    let to = [wrap_key(&OTHER)];
    let sealed = sealed_for("a.example", &[&EDGE]);
    let other = sealed_for("a.example", &[&EDGE]);
    let mixed = Sealed { recipients: other.recipients, ..sealed.clone() };
    assert_eq!(rewrap(&mixed, &EDGE, &to), Err(OpenError::Broken));
    let altered = Sealed { aad: sealed_for("b.example", &[&EDGE]).aad, ..sealed.clone() };
    assert_eq!(rewrap(&altered, &EDGE, &to), Err(OpenError::Broken));
    assert_eq!(rewrap(&sealed, &OTHER, &to), Err(OpenError::NotForUs(OTHER.kid().to_owned())));
}

#[test]
fn only_who_has_the_key_proves_it_and_the_secret_stays_there() {
    let (secret, body) = ([7; 32], b"what comes back");
    let challenge = recipient(&EDGE).wrap(&secret).unwrap();
    let proof = prove(&challenge, &EDGE, body).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    assert!(ring::hmac::verify(&key, body, &URL_SAFE_NO_PAD.decode(&proof).unwrap()).is_ok());
    assert_ne!(prove(&challenge, &EDGE, b"another body").unwrap(), proof);
    assert_eq!(prove(&challenge, &OTHER, body), Err(OpenError::Broken));
    assert!(prove("%", &EDGE, body).is_err());
    // A content key that is asked for in the guise of a challenge is not told either.
    let sealed = sealed_for("a.example", &[&EDGE]);
    let told = URL_SAFE_NO_PAD.decode(prove(&sealed.recipients[0].encrypted_key, &EDGE, body).unwrap()).unwrap();
    let unlocked = super::opening::unlocked(&sealed, &EDGE, |_| Ok(())).unwrap_or_else(|_| unreachable!());
    assert_ne!(told, *unlocked.content_key);
}

#[test]
fn a_private_key_or_a_small_one_is_no_key_to_wrap_for() {
    assert!(matches!(WrapKey::from_pem(EDGE.private_pem().unwrap().as_bytes()), Err(KeyError::MalformedPublic)));
    assert!(matches!(WrapKey::from_pem(b"nonsense"), Err(KeyError::MalformedPublic)));
    let small = openssl::rsa::Rsa::generate(1024).unwrap().public_key_to_pem().unwrap();
    assert!(matches!(WrapKey::from_pem(&small), Err(KeyError::Size(1024))));
    assert_eq!(wrap_key(&EDGE).kid(), EDGE.kid());
}
