use super::*;
use crate::field::{JoinAnswer, JoinToken};
use jiff::SignedDuration;
use packager::SiteKey;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa};
use std::os::unix::fs::PermissionsExt;

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn days(n: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * n)
}

fn authority() -> Authority {
    Authority::open(tempfile::tempdir().unwrap().path(), now()).unwrap()
}

fn id(bits: u128) -> PointId {
    PointId::from_random(bits)
}

fn point(authority: &Authority, bits: u128) -> Identity {
    let request = Identity::request().unwrap();
    let certificate = authority.sign(request.pem(), &id(bits), now()).unwrap();
    request.answered(&certificate, authority.anchor()).unwrap()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_authority_is_made_once_and_its_key_is_secret() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let made = Authority::open(&keys, now()).unwrap();
    let again = Authority::open(&keys, now() + days(1000)).unwrap();
    assert_eq!(made.fingerprint(), again.fingerprint());
    assert_eq!(mode(&keys.join("authority.key")), 0o600);
    let other = authority();
    assert_ne!(made.fingerprint(), other.fingerprint());
    assert_ne!(made.anchor().pem(), other.anchor().pem());
    // What one opening signed, the next stands for.
    let point = point(&again, 1);
    assert_eq!(point.authority(), made.anchor());
}

#[test]
fn an_authority_without_its_key_is_not_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    Authority::open(folder.path(), now()).unwrap();
    let key = folder.path().join("authority.key");
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let gone = Authority::open(folder.path(), now()).unwrap_err();
    assert!(matches!(gone, IdentityError::KeyIsGone { .. }), "{gone}");
    // Another's key is not its key.
    let other = tempfile::tempdir().unwrap();
    Authority::open(other.path(), now()).unwrap();
    std::fs::copy(other.path().join("authority.key"), &key).unwrap();
    let malformed = Authority::open(folder.path(), now()).unwrap_err();
    assert!(matches!(malformed, IdentityError::Malformed { .. }), "{malformed}");
    std::fs::write(&key, kept).unwrap();
    Authority::open(folder.path(), now()).unwrap();
}

#[test]
fn a_crash_between_key_and_certificate_is_made_good() {
    let folder = tempfile::tempdir().unwrap();
    Authority::open(folder.path(), now()).unwrap();
    std::fs::remove_file(folder.path().join("authority.pem")).unwrap();
    Authority::open(folder.path(), now()).unwrap().site_identity(now()).unwrap();
}

#[test]
fn a_certificate_names_its_peer_and_holds_for_ninety_days() {
    let authority = authority();
    let site = authority.site_identity(now()).unwrap();
    assert_eq!((site.peer(), site.peer().name().as_str()), (&Peer::Site, "site.depot"));
    let point = point(&authority, 0xab);
    assert_eq!(point.peer(), &Peer::Point(id(0xab)));
    assert_eq!(point.peer().name(), format!("{}.point.depot", id(0xab)));
    assert_eq!(point.expires(), now() + days(90));
    let left = point.expires().duration_since(point.renew_at());
    assert!((30..=31).contains(&(left.as_hours() / 24)), "{left}");
}

#[test]
fn an_authority_at_its_end_signs_nothing_that_outlives_it() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::open(folder.path(), now()).unwrap();
    let late = now() + days(365 * 50 - 10);
    let site = authority.site_identity(late).unwrap();
    assert!(site.expires() <= late + days(10));
}

#[test]
fn clocks_that_are_far_off_make_no_panic() {
    for at in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
        let folder = tempfile::tempdir().unwrap();
        if let Ok(authority) = Authority::open(folder.path(), at) {
            let _ = authority.site_identity(at);
            let _ = authority.site_identity(now());
        }
    }
}

#[test]
fn only_the_key_of_a_request_counts() {
    let authority = authority();
    let key = KeyPair::generate().unwrap();
    let mut asks =
        CertificateParams::new(vec!["site.depot".into(), "bank.example".into()]).unwrap();
    asks.distinguished_name.push(DnType::CommonName, "site.depot");
    asks.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    asks.is_ca = IsCa::NoCa;
    let request = asks.serialize_request(&key).unwrap().pem().unwrap();
    let certificate = authority.sign(&request, &id(1), now()).unwrap();
    let certificate = file::certificate(&certificate).unwrap();
    assert!(certificate::is_of(&certificate, &key));
    let vouched = Vouched::by(authority.anchor(), &certificate).unwrap();
    assert_eq!(vouched.peer, Peer::Point(id(1)));
    let text = String::from_utf8_lossy(&certificate);
    assert!(!text.contains("site.depot") && !text.contains("bank.example"));
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    let authority = authority();
    let request = Identity::request().unwrap();
    let good = pem::parse(request.pem()).unwrap();
    let sign = |der: &[u8]| {
        authority.sign(&file::pem("CERTIFICATE REQUEST", der), &id(1), now()).unwrap_err()
    };
    // Every single changed byte is noticed, wherever it is.
    for at in 0..good.contents().len() {
        let mut bad = good.contents().to_vec();
        bad[at] ^= 1;
        assert!(matches!(sign(&bad), IdentityError::BadRequest(_)), "byte {at}");
    }
    for cut in 0..good.contents().len() {
        assert!(matches!(sign(&good.contents()[..cut]), IdentityError::BadRequest(_)), "{cut}");
    }
    let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let other = CertificateParams::default().serialize_request(&other).unwrap();
    assert!(sign(other.der()).to_string().contains("P-256"));
    for text in ["", "x", &authority.anchor().pem(), &request.pem().repeat(200)] {
        assert!(matches!(authority.sign(text, &id(1), now()), Err(IdentityError::BadRequest(_))));
    }
}

#[test]
fn an_identity_is_kept_whole_and_secret() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("keys");
    assert!(Identity::load(&folder).unwrap().is_none());
    let authority = authority();
    let point = point(&authority, 7);
    point.store(&folder).unwrap();
    let path = folder.join("identity.pem");
    assert_eq!(mode(&path), 0o600);
    let loaded = Identity::load(&folder).unwrap().unwrap();
    assert_eq!((loaded.peer(), loaded.chain_pem()), (point.peer(), point.chain_pem()));
    assert!(!format!("{loaded:?}{authority:?}").contains("PRIVATE"));
    let text = std::fs::read_to_string(&path).unwrap();
    for cut in [0, 10, text.len() / 2, text.len() - 60] {
        std::fs::write(&path, &text[..cut]).unwrap();
        assert!(Identity::load(&folder).is_err(), "cut at {cut}");
    }
    // The certificate of another key.
    let other = self::point(&authority, 8);
    std::fs::write(&path, point.key.serialize_pem() + &other.chain_pem()).unwrap();
    assert!(matches!(Identity::load(&folder), Err(IdentityError::BadCertificate(_))));
}

#[test]
fn a_certificate_of_another_authority_makes_no_identity() {
    let (ours, theirs) = (authority(), authority());
    let request = Identity::request().unwrap();
    let certificate = theirs.sign(request.pem(), &id(1), now()).unwrap();
    let refused = request.answered(&certificate, ours.anchor()).unwrap_err();
    assert!(matches!(refused, IdentityError::NotVouched(_)), "{refused}");
}

#[test]
fn joining_believes_the_authority_of_its_token_alone() {
    let (ours, theirs) = (authority(), authority());
    let folder = tempfile::tempdir().unwrap();
    let answer = |authority: &Authority, request: &Request, named: u128, signed: u128| JoinAnswer {
        id: id(named),
        name: "branch-7".into(),
        certificate: authority.sign(request.pem(), &id(signed), now()).unwrap(),
        authority: authority.anchor().pem(),
        key: SiteKey::from_seed([7; 32]).public(),
        sites: vec![],
    };
    let token = JoinToken { authority: ours.fingerprint(), secret: [1; 16], sites: vec![] };
    let request = || Request::kept_in(folder.path()).unwrap();
    let first = request();
    assert!(request().joined(&answer(&theirs, &first, 1, 1), &token).is_err());
    assert!(request().joined(&answer(&ours, &first, 1, 2), &token).is_err());
    // The kept key is the same each time, and another once it is forgotten.
    let identity = request().joined(&answer(&ours, &first, 1, 1), &token).unwrap();
    assert_eq!(identity.peer(), &Peer::Point(id(1)));
    assert_eq!(mode(&folder.path().join("pending.key")), 0o600);
    Request::forget_in(folder.path()).unwrap();
    Request::forget_in(folder.path()).unwrap();
    assert!(request().joined(&answer(&ours, &first, 1, 1), &token).is_err());
}

#[test]
fn a_client_goes_to_bare_addresses_alone() {
    let authority = authority();
    let identity = authority.site_identity(now()).unwrap();
    let clock: packager::Clock = std::sync::Arc::new(now);
    let config = client_config(&identity, &clock).unwrap();
    for (address, url) in [
        ("https://127.0.0.1:8520", "https://site.depot:8520/"),
        ("https://[::1]:8520/", "https://site.depot:8520/"),
        ("https://site.example", "https://site.depot/"),
    ] {
        assert_eq!(client(&config, &Peer::Site, address).unwrap().1.as_str(), url);
    }
    for bad in ["", "host:1", "http://h:1", "https://h/path", "https://u:p@h", "https://h?x"] {
        assert!(client(&config, &Peer::Site, bad).is_err(), "{bad}");
    }
}
