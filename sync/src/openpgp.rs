//! OpenPGP: whether something is signed by a key of a keyring, and signing with the site's own.
