//! Which clients a rule means: arithmetic on the bitmaps of the index.

use super::{Rule, Test, Text};
use compliance::fleet::{Index, Installed, PackageKind, Property};
use roaring::RoaringBitmap;
use sync::language::{Compare, Expr};
use sync::mirror::matches;

impl Rule {
    /// The clients of `scope` that are meant. Of a small scope it costs little.
    pub fn clients(&self, index: &Index, scope: &RoaringBitmap) -> RoaringBitmap {
        expr(&self.0, index, &(scope & index.fleet()))
    }
}

fn expr(it: &Expr<Test>, index: &Index, scope: &RoaringBitmap) -> RoaringBitmap {
    match it {
        // What the first parts leave is all that the others have to look at.
        Expr::All(parts) => {
            let mut found = scope.clone();
            for part in parts {
                found = expr(part, index, &found);
            }
            found
        }
        Expr::Any(parts) => {
            let mut found = RoaringBitmap::new();
            for part in parts {
                found |= expr(part, index, &(scope - &found));
            }
            found
        }
        Expr::Not(part) => scope - expr(part, index, scope),
        Expr::Test(it) => test(it, index, scope),
    }
}

fn test(it: &Test, index: &Index, scope: &RoaringBitmap) -> RoaringBitmap {
    match it {
        Test::Is(Text::Name, patterns) => {
            let patterns = lower(patterns);
            let fits = |name: &str| patterns.iter().any(|pattern| matches(pattern, name));
            index.each(scope, |client| fits(&index.name(*client).to_lowercase()))
        }
        Test::Contains(Text::Name, part) => {
            let part = part.to_lowercase();
            index.each(scope, |client| index.name(*client).to_lowercase().contains(&part))
        }
        Test::Is(Text::Word(property), patterns) => {
            let patterns = lower(patterns);
            let mut found = RoaringBitmap::new();
            for pattern in &patterns {
                found |= match pattern.contains('*') {
                    true => index.with_words(property, scope, |word| matches(pattern, word)),
                    false => index.with_word(property, pattern, scope),
                };
            }
            found
        }
        Test::Contains(Text::Word(property), part) => {
            let part = part.to_lowercase();
            index.with_words(property, scope, |word| word.contains(&part))
        }
        Test::Version(compare, version) => index.with_words(&Property::OsVersion, scope, |word| {
            compare.is(PackageKind::Other.compare(word, version))
        }),
        Test::Address(networks) => index.each(scope, |client| {
            let mut addresses = index.addresses(*client).iter();
            addresses.any(|address| networks.iter().any(|network| network.contains(*address)))
        }),
        Test::Package(patterns) => {
            let mut found = RoaringBitmap::new();
            for pattern in patterns {
                if pattern.contains('*') {
                    let all = index.all_installed().filter(|(name, _)| matches(pattern, name));
                    having(&mut found, all.flat_map(|(_, all)| all), scope, |_| true);
                } else {
                    named(&mut found, index, pattern, scope, |_| true);
                }
            }
            found
        }
        Test::PackageVersion { name, compare, version } => {
            let mut found = RoaringBitmap::new();
            let fits = |it: &Installed<'_>| fits(it, *compare, version);
            named(&mut found, index, name, scope, fits);
            found
        }
    }
}

/// Adds who has a package of that name, `libc6` or `libc6:i386`.
fn named(
    found: &mut RoaringBitmap,
    index: &Index,
    name: &str,
    scope: &RoaringBitmap,
    fits: impl Fn(&Installed<'_>) -> bool,
) {
    let (name, arch) = match name.split_once(':') {
        Some((name, arch)) => (name, Some(arch)),
        None => (name, None),
    };
    let fits = |it: &Installed<'_>| arch.is_none_or(|arch| it.arch == arch) && fits(it);
    having(found, index.installed(name), scope, fits);
}

fn having<'a>(
    found: &mut RoaringBitmap,
    all: impl Iterator<Item = Installed<'a>>,
    scope: &RoaringBitmap,
    fits: impl Fn(&Installed<'_>) -> bool,
) {
    for it in all {
        if !it.clients.is_disjoint(scope) && fits(&it) {
            *found |= it.clients & scope;
        }
    }
}

fn fits(it: &Installed<'_>, compare: Compare, version: &str) -> bool {
    compare.is(it.kind.compare(it.version, version))
}

fn lower(words: &[String]) -> Vec<String> {
    words.iter().map(|word| word.to_lowercase()).collect()
}
