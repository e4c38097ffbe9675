use super::*;
use proptest::prelude::*;
use std::path::Path;
use std::process::Command;

const IN_RELEASE: &[u8] = include_bytes!("../../tests/data/apt/InRelease");
const DEBIAN: &[u8] = include_bytes!("../../tests/data/apt/debian-archive-keyring.gpg");

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn day_of_release() -> Timestamp {
    at("2026-11-20T06:00:00Z")
}

fn site_key(seed: u8) -> SigningKey {
    SigningKey::new([seed; 32], "Site <site@example.org>", at("2026-01-01T00:00:00Z")).unwrap()
}

fn ring(key: &SigningKey) -> Keyring {
    Keyring::parse(&key.public_bytes().unwrap()).unwrap()
}

fn faults(refused: NotSigned) -> Vec<Fault> {
    match refused {
        NotSigned::NoneGood(refused) => refused.into_iter().map(|one| one.why).collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn the_genuine_release_of_debian_is_signed_by_its_archive_keys() {
    let keyring = Keyring::parse(DEBIAN).unwrap();
    assert!(keyring.fingerprints().count() >= 9);
    let armored = String::from(keyring.clone());
    assert_eq!(Keyring::parse(armored.as_bytes()), Ok(keyring.clone()));
    let (text, signer) = keyring.signed_text(IN_RELEASE, day_of_release()).unwrap();
    assert!(text.starts_with(b"Origin: Debian\nLabel: Debian-Security\n"));
    assert!(text.ends_with(b"\n") && !contains(&text, b"PGP"));
    assert!(signer.user_id.contains("Debian Security Archive"), "{signer:?}");
    assert_eq!(signer.at, at("2026-11-20T00:12:43Z"));
}

#[test]
fn what_gnupg_notes_between_packets_ends_no_key_and_what_is_lost_is_told() {
    let (keyring, told) = Keyring::parse_and_tell(DEBIAN).unwrap();
    assert_eq!(told, None);
    let subkeys = |keyring: &Keyring| -> usize {
        keyring.keys.iter().map(|key| key.public_subkeys.len()).sum()
    };
    assert!(subkeys(&keyring) > 0);
    // A trust packet after each packet, as `gpg --export-options backup` writes them.
    let (mut noted, mut rest) = (Vec::new(), packets::sift(DEBIAN).bytes);
    while let Some((_, len)) = packets::header(&rest) {
        let after = rest.split_off(len);
        noted.extend_from_slice(&rest);
        noted.extend_from_slice(&[0xb0, 2, 0, 3]);
        rest = after;
    }
    assert_eq!(Keyring::parse_and_tell(&noted).unwrap(), (keyring, None));
    // A subkey of a version that nobody knows.
    let key = ring(&site_key(3));
    let odd = [&site_key(3).public_bytes().unwrap()[..], &[0xb8, 6, 99, 0, 0, 0, 0, 1]].concat();
    let (kept, told) = Keyring::parse_and_tell(&odd).unwrap();
    assert_eq!(kept.fingerprints().next(), key.fingerprints().next());
    assert!(told.unwrap().contains("1 of 1 subkeys"));
    let keybox = [&[0, 0, 0, 32, 1, 1, 0, 2][..], b"KBXf", &[0; 20]].concat();
    assert!(Keyring::parse(&keybox).unwrap_err().to_string().contains("--export"));
}

#[test]
fn one_altered_letter_is_seen_and_an_unknown_key_is_named() {
    let mut altered = IN_RELEASE.to_vec();
    altered[200] ^= 1;
    let keyring = Keyring::parse(DEBIAN).unwrap();
    let refused = keyring.signed_text(&altered, day_of_release()).unwrap_err();
    assert_eq!(faults(refused), [Fault::Wrong, Fault::Wrong]);
    let refused = ring(&site_key(1)).signed_text(IN_RELEASE, day_of_release()).unwrap_err();
    assert!(refused.to_string().contains("ED541312A33F1128F10B1C6C54404762BBB6E853"), "{refused}");
    assert_eq!(refused.of("InRelease").cause, crate::error::Cause::BadSignature);
}

#[test]
fn what_the_site_signs_reads_back_as_it_was_with_any_line_ends() {
    let (key, now) = (site_key(7), at("2026-11-20T00:00:00Z"));
    let text = b"Origin: x\n- a dash\n-----BEGIN PGP SIGNATURE-----\nspaces   \n\nlast";
    let document = key.clear_sign(text, now).unwrap();
    let want = b"Origin: x\n- a dash\n-----BEGIN PGP SIGNATURE-----\nspaces\n\nlast\n";
    let (read, signer) = ring(&key).signed_text(&document, now).unwrap();
    assert_eq!(read, want);
    assert_eq!(signer.fingerprint, key.fingerprint());
    let dos = String::from_utf8(document).unwrap().replace('\n', "\r\n");
    assert_eq!(ring(&key).signed_text(dos.as_bytes(), now).unwrap().0, want);

    let again = SigningKey::from_secret_bytes(&key.to_secret_bytes().unwrap()).unwrap();
    let beside = again.detach_sign(b"repomd", now).unwrap();
    let armored = Keyring::parse(key.public_armored().unwrap().as_bytes()).unwrap();
    assert_eq!(armored.signer_of(b"repomd", beside.as_bytes(), now).unwrap().at, now);
    let refused = armored.signer_of(b"repomD", beside.as_bytes(), now).unwrap_err();
    assert_eq!(faults(refused), [Fault::Wrong]);
    assert!(!format!("{again:?}").contains("secret"));
}

#[test]
fn text_outside_of_the_signed_part_never_counts() {
    let (key, now) = (site_key(7), at("2026-11-20T00:00:00Z"));
    let document = String::from_utf8(key.clear_sign(b"a: 1\nb: 2\n", now).unwrap()).unwrap();
    let keyring = ring(&key);
    assert!(keyring.signed_text(document.as_bytes(), now).is_ok());
    let forged = [
        format!("x: 1\n{document}"),
        document.replace("Hash: SHA512\n", "Hash: SHA512\nx: 1\n"),
        format!("{document}x: 1\n"),
        document.replace("a: 1\n", "a: 1\n-x: 1\n"),
        document.replace("a: 1\nb: 2", "a: 1\rb: 2"),
        document.replace("-----END PGP SIGNATURE-----", ""),
        String::from("a: 1\nb: 2\n"),
    ];
    for forged in forged {
        assert!(keyring.signed_text(forged.as_bytes(), now).is_err(), "{forged}");
    }
}

#[test]
fn signatures_from_the_future_and_broken_keyrings_are_refused() {
    let (key, now) = (site_key(7), at("2026-11-20T00:00:00Z"));
    let tomorrow = at("2026-11-21T00:00:00Z");
    let document = key.clear_sign(b"a\n", tomorrow).unwrap();
    assert_eq!(faults(ring(&key).signed_text(&document, now).unwrap_err()), [Fault::WrongTime]);
    let early = key.clear_sign(b"a\n", at("2025-01-01T00:00:00Z")).unwrap();
    assert_eq!(faults(ring(&key).signed_text(&early, now).unwrap_err()), [Fault::WrongTime]);
    assert!(matches!(Keyring::parse(b"no keys"), Err(NotAKeyring::NoKey(_))));
    assert!(matches!(Keyring::parse(b""), Err(NotAKeyring::NoKey(_))));
    let secret = key.to_secret_bytes().unwrap();
    assert!(Keyring::parse(&secret).is_err());
}

/// A home of GnuPG, gone at the end of the test.
struct Gnupg(tempfile::TempDir);

impl Gnupg {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn run(&self, program: &str, arguments: &[&str]) -> (bool, String) {
        let done = Command::new(program)
            .args(["--homedir", self.0.path().to_str().unwrap()])
            .args(arguments)
            .output()
            .unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    fn gpg(&self, arguments: &[&str]) {
        let batch = ["--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""];
        let (good, said) = self.run("gpg", &[&batch[..], arguments].concat());
        assert!(good, "gpg {arguments:?}: {said}");
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn keyring(&self) -> Keyring {
        self.gpg(&["--output", &self.path("ring"), "--export"]);
        Keyring::parse(&self.read("ring")).unwrap()
    }
}

impl Drop for Gnupg {
    fn drop(&mut self) {
        let home = self.0.path();
        let _ = Command::new("gpgconf").arg("--homedir").arg(home).args(["--kill", "all"]).output();
    }
}

fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn gpgv_accepts_what_the_site_signs() {
    let (home, key) = (Gnupg::new(), site_key(9));
    let now = at("2026-11-20T00:00:00Z");
    let text = b"Origin: x\n-dash \n\nSHA256:\n abc\n";
    write(home.path("ring.gpg"), key.public_bytes().unwrap());
    write(home.path("InRelease"), key.clear_sign(text, now).unwrap());
    write(home.path("Release"), text);
    write(home.path("Release.gpg"), key.detach_sign(text, now).unwrap());
    let ring = home.path("ring.gpg");
    let inline = ["--keyring", &ring, &home.path("InRelease")];
    let beside = ["--keyring", &ring, &home.path("Release.gpg"), &home.path("Release")];
    for arguments in [&inline[..], &beside[..]] {
        let (good, said) = home.run("gpgv", arguments);
        assert!(good && said.contains("Good signature from \"Site"), "{said}");
    }
    write(home.path("Release"), b"another");
    assert!(!home.run("gpgv", &beside).0);
    // The armored form is what `gpg --import` and rpm take.
    write(home.path("key.asc"), key.public_armored().unwrap());
    home.gpg(&["--import", &home.path("key.asc")]);
}

#[test]
fn keys_of_gnupg_with_subkeys_count_until_they_expire_or_are_revoked() {
    let home = Gnupg::new();
    let now = Timestamp::now();
    home.gpg(&["--quick-generate-key", "Old <o@example.org>", "rsa2048", "cert", "2d"]);
    let old = home.keyring().fingerprints().next().unwrap();
    home.gpg(&["--quick-add-key", &old, "ed25519", "sign", "1d"]);
    write(home.path("text"), "From me\n- and you\nlast without an end");
    home.gpg(&["--output", &home.path("inline"), "--clear-sign", &home.path("text")]);
    home.gpg(&["--output", &home.path("beside"), "--detach-sign", &home.path("text")]);
    let keyring = home.keyring();
    let (text, signer) = keyring.signed_text(&home.read("inline"), now).unwrap();
    assert_eq!(text, b"From me\n- and you\nlast without an end\n");
    assert_eq!(signer.fingerprint, old);
    keyring.signer_of(&home.read("text"), &home.read("beside"), now).unwrap();

    let later =
        |days: i64| Timestamp::from_second(now.as_second() + days * 86_400 + 3_600).unwrap();
    for days in [1, 2] {
        let refused = keyring.signed_text(&home.read("inline"), later(days)).unwrap_err();
        assert_eq!(faults(refused), [Fault::KeyExpired], "{days}");
    }

    // A second key signs beside the first: one good signature is enough.
    home.gpg(&["--quick-generate-key", "New <n@example.org>", "ed25519", "sign", "never"]);
    let both = ["--local-user", "o@example.org", "--local-user", "n@example.org", "--clear-sign"];
    home.gpg(&[&["--output", &home.path("both")], &both[..], &[&home.path("text")]].concat());
    let keyring = home.keyring();
    let (_, signer) = keyring.signed_text(&home.read("both"), later(3)).unwrap();
    assert!(signer.user_id.starts_with("New"), "{signer:?}");

    // A revoked key never counts again. The certificate that GnuPG lays aside is kept from being
    // imported by accident: a colon stands in front of it.
    let laid_aside = home.path(&format!("openpgp-revocs.d/{old}.rev"));
    let revocation = std::fs::read_to_string(laid_aside).unwrap().replace(":-----", "-----");
    write(home.path("rev"), revocation);
    home.gpg(&["--import", &home.path("rev")]);
    let refused = home.keyring().signed_text(&home.read("inline"), now).unwrap_err();
    assert_eq!(faults(refused), [Fault::KeyRevoked]);
}

#[test]
fn weak_hash_functions_are_refused() {
    let home = Gnupg::new();
    home.gpg(&["--quick-generate-key", "A <a@example.org>", "rsa2048", "sign", "never"]);
    write(home.path("text"), "a\n");
    let inline = home.path("inline");
    home.gpg(&["--digest-algo", "SHA1", "--output", &inline, "--clear-sign", &home.path("text")]);
    let refused = home.keyring().signed_text(&home.read("inline"), Timestamp::now()).unwrap_err();
    assert_eq!(faults(refused), [Fault::Weak]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn no_mutated_document_or_keyring_panics_or_counts(
        at in 0..IN_RELEASE.len(), bits in 1..=255u8, cut in 0..IN_RELEASE.len(),
    ) {
        let keyring = Keyring::parse(DEBIAN).unwrap();
        let mut document = IN_RELEASE.to_vec();
        document[at] ^= bits;
        if let Ok((text, _)) = keyring.signed_text(&document, day_of_release()) {
            // What was hit is no part of the text, or of one signature alone.
            let genuine = keyring.signed_text(IN_RELEASE, day_of_release()).unwrap().0;
            prop_assert!(text == genuine);
        }
        let cut_off = keyring.signed_text(&IN_RELEASE[..cut], day_of_release());
        prop_assert!(cut_off.is_err());
        let mut ring = DEBIAN.to_vec();
        let at = at % ring.len();
        ring[at] ^= bits;
        if let Ok(keyring) = Keyring::parse(&ring) {
            let _ = keyring.signed_text(IN_RELEASE, day_of_release());
        }
    }
}
