//! A program of an update's own: what is run, and what its exit code means.

use super::Said;
use crate::enforce::code;
use deployment::enforcement::{Failure, MAX_DETAIL};
use sync::update::{CodeResult, Handler};

/// What it is run with.
pub const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("HOME", "/root")];
/// The most words of a command line.
const MAX_WORDS: usize = 1_000;

/// The words that are run; the program is one of the update's files in `folder`, or a path of the machine's.
///
/// # Errors
/// They make no sense.
pub fn words(handler: &Handler, files: &[&str], folder: &str) -> Result<Vec<String>, Failure> {
    let no_way = |what: &str| Failure::new(code::NO_WAY, what);
    let Handler::CommandLine { program, arguments, .. } = handler else {
        return Err(no_way("it is no program"));
    };
    let program = match program.as_str() {
        name if files.contains(&name) => format!("{folder}/{name}"),
        path if path.starts_with('/') => path.to_owned(),
        "" => return Err(no_way("it names no program")),
        other => {
            let what = format!("{other} is none of its files, and no absolute path");
            return Err(no_way(&what));
        }
    };
    let mut words = vec![program];
    words.extend(split(arguments).ok_or_else(|| no_way("its arguments have an open quote"))?);
    match words.len() <= MAX_WORDS && !words.iter().any(|word| word.contains('\0')) {
        true => Ok(words),
        false => Err(no_way("its arguments are none")),
    }
}

/// Arguments as a shell would split them, without all that it would put in: words, and quotes of both kinds.
fn split(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// What its end means. Of an exit code Linux keeps the low byte, so a listed 3010 is what ends as 194.
pub fn said(handler: &Handler, code: Option<i32>, said: &str) -> Said {
    let Handler::CommandLine { default_result, restart_by_default, codes, .. } = handler else {
        return Said::Failed(Failure::new(code::NO_WAY, "it is no program"));
    };
    let Some(code) = code else {
        return Said::Failed(Failure::new(code::LOCAL, "a signal ended it"));
    };
    let is_it = |listed: i64| listed == i64::from(code) || listed & 0xff == i64::from(code) & 0xff;
    let exact = codes.iter().find(|it| it.code == i64::from(code));
    let listed =
        exact.or_else(|| codes.iter().find(|it| !(0..256).contains(&it.code) && is_it(it.code)));
    let (result, restarts) = match listed {
        Some(it) => (it.result, it.restart),
        // What nobody lists has its usual meaning.
        None if code == 0 => (CodeResult::Succeeded, false),
        None if codes.is_empty() && code == 3_010 & 0xff => (CodeResult::Succeeded, true),
        None => (*default_result, *restart_by_default),
    };
    match result {
        CodeResult::Succeeded => Said::Installed { restarts },
        CodeResult::Cancelled => Said::Failed(Failure::new(code.into(), "somebody cancelled it")),
        CodeResult::Failed => {
            let words = super::last_words(said, MAX_DETAIL);
            Said::Failed(Failure::new(code.into(), words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sync::update::ReturnCode;

    fn handler(program: &str, arguments: &str, codes: &[(i64, CodeResult, bool)]) -> Handler {
        let codes = codes.iter();
        let codes = codes.map(|(code, result, restart)| ReturnCode {
            code: *code,
            result: *result,
            restart: *restart,
        });
        Handler::CommandLine {
            program: program.into(),
            arguments: arguments.into(),
            default_result: CodeResult::Failed,
            restart_by_default: false,
            codes: codes.collect(),
        }
    }

    #[test]
    fn the_program_is_a_file_of_the_update_or_a_path() {
        let of = |program: &str, arguments: &str| {
            words(&handler(program, arguments, &[]), &["setup.sh"], "/c")
        };
        let done = of("setup.sh", r#"--quiet 'two words' a"b"c \x """#).unwrap();
        assert_eq!(done, ["/c/setup.sh", "--quiet", "two words", "abc", "x", ""]);
        assert_eq!(of("/bin/sh", "").unwrap(), ["/bin/sh"]);
        assert!(of("sh", "").unwrap_err().detail.contains("none of its files"));
        assert!(of("../x", "").is_err() && of("", "").is_err() && of("setup.sh", "'x").is_err());
    }

    #[test]
    fn codes_mean_what_is_listed_and_else_what_they_usually_do() {
        use CodeResult::*;
        let listed = handler(
            "x",
            "",
            &[(0, Succeeded, false), (3_010, Succeeded, true), (7, Cancelled, false)],
        );
        assert_eq!(said(&listed, Some(0), ""), Said::Installed { restarts: false });
        assert_eq!(said(&listed, Some(194), ""), Said::Installed { restarts: true });
        assert!(matches!(said(&listed, Some(7), ""), Said::Failed(it) if it.code == 7));
        assert!(matches!(said(&listed, Some(1), "oh"), Said::Failed(it) if it.detail == "oh"));
        let none = handler("x", "", &[]);
        assert_eq!(said(&none, Some(194), ""), Said::Installed { restarts: true });
        assert!(matches!(said(&none, None, ""), Said::Failed(_)));
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_split_or_refused(text in any::<String>()) {
            let _ = split(&text);
        }
    }
}
