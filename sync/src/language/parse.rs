//! Conditions out of text.

use super::{
    Condition, Expr, MAX_DEPTH, MAX_SEARCHES, MAX_TERMS, MAX_TEXT, MAX_VALUES, SyntaxError,
};

/// Reads a text; of one without a word comes what always holds.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse<T: Condition>(text: &str) -> Result<Expr<T>, SyntaxError> {
    if text.len() > MAX_TEXT {
        return Err(SyntaxError::new(1, format!("a {} has at most {MAX_TEXT} bytes", T::TEXT)));
    }
    let tokens = tokens(text)?;
    let end = text.chars().count() + 1;
    let kind = T::TEXT;
    let mut parser =
        Parser { tokens: &tokens, kind, end, depth: 0, terms: 0, values: 0, searches: 0 };
    if parser.tokens.is_empty() {
        return Ok(Expr::default());
    }
    let expr = parser.any()?;
    match parser.tokens {
        [] => Ok(expr),
        [(column, Token::Close), ..] => Err(SyntaxError::new(*column, "this ) was not opened")),
        [(column, token), ..] => Err(SyntaxError::new(
            *column,
            format!("want 'and', 'or' or the end here, found {token}"),
        )),
    }
}

/// A part of the text.
#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    /// A word in quotes: a value, whatever it says.
    Quoted(String),
    Sign(&'static str),
    Open,
    Close,
    Comma,
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(word) | Self::Quoted(word) => {
                write!(f, "{:?}", word.chars().take(50).collect::<String>())
            }
            Self::Sign(sign) => write!(f, "{sign:?}"),
            Self::Open => f.write_str("\"(\""),
            Self::Close => f.write_str("\")\""),
            Self::Comma => f.write_str("\",\""),
        }
    }
}

/// The signs, those first that begin like another one.
const SIGNS: [&str; 8] = ["!=", "!~", "<=", ">=", "=", "<", ">", "~"];

/// Whether a character can be part of a word without quotes.
pub(super) fn is_plain(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !"()=!<>~,'\"\\".contains(c)
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let (mut tokens, mut rest, mut column) = (Vec::new(), text, 1);
    while let Some(first) = rest.chars().next() {
        let sign = SIGNS.into_iter().find(|sign| rest.starts_with(sign));
        let (token, len) = match first {
            _ if first.is_whitespace() => (None, first.len_utf8()),
            '(' => (Some(Token::Open), 1),
            ')' => (Some(Token::Close), 1),
            ',' => (Some(Token::Comma), 1),
            '\'' | '"' => {
                let (word, len) = quoted(rest, first)
                    .ok_or_else(|| SyntaxError::new(column, format!("this {first} has no end")))?;
                (Some(Token::Quoted(word)), len)
            }
            _ if let Some(sign) = sign => (Some(Token::Sign(sign)), sign.len()),
            _ if is_plain(first) => {
                let len = rest.find(|c| !is_plain(c)).unwrap_or(rest.len());
                (Some(Token::Word(rest[..len].into())), len)
            }
            other => {
                let problem = format!("{other:?} can stand here only in quotes");
                return Err(SyntaxError::new(column, problem));
            }
        };
        tokens.extend(token.map(|token| (column, token)));
        column += rest[..len].chars().count();
        rest = &rest[len..];
    }
    Ok(tokens)
}

/// A word in quotes, in which a backslash takes the next character as it is; and its length.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut word = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => word.push(chars.next()?.1),
            _ if c == quote => return Some((word, at + 1)),
            _ => word.push(c),
        }
    }
    None
}

/// What is left of a text, for who reads a condition.
pub struct Parser<'a> {
    tokens: &'a [(usize, Token)],
    kind: &'static str,
    /// The column after the last one.
    end: usize,
    depth: usize,
    terms: usize,
    values: usize,
    searches: usize,
}

impl<'a> Parser<'a> {
    /// The column of what comes next.
    pub fn column(&self) -> usize {
        self.tokens.first().map_or(self.end, |(column, _)| *column)
    }

    fn next(&mut self) -> Option<(usize, &'a Token)> {
        let ((column, token), rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some((*column, token))
    }

    /// Passes over the word, if it comes next; whether it did.
    pub fn word(&mut self, wanted: &str) -> bool {
        let found = matches!(self.tokens.first(), Some((_, Token::Word(word))) if word.eq_ignore_ascii_case(wanted));
        if found {
            self.next();
        }
        found
    }

    /// What comes next, as a message shows it.
    pub fn found(&self) -> String {
        self.tokens.first().map_or("the end".into(), |(_, token)| token.to_string())
    }

    fn any<T: Condition>(&mut self) -> Result<Expr<T>, SyntaxError> {
        let mut parts = vec![self.all()?];
        while self.word("or") {
            parts.push(self.all()?);
        }
        Ok(Expr::any(parts))
    }

    fn all<T: Condition>(&mut self) -> Result<Expr<T>, SyntaxError> {
        let mut parts = vec![self.one()?];
        while self.word("and") {
            parts.push(self.one()?);
        }
        Ok(Expr::all(parts))
    }

    fn one<T: Condition>(&mut self) -> Result<Expr<T>, SyntaxError> {
        let column = self.column();
        if self.depth >= MAX_DEPTH {
            let problem = format!("this is nested more than {MAX_DEPTH} deep");
            return Err(SyntaxError::new(column, problem));
        }
        self.depth += 1;
        let one = self.one_inside(column);
        self.depth -= 1;
        one
    }

    fn one_inside<T: Condition>(&mut self, column: usize) -> Result<Expr<T>, SyntaxError> {
        if self.word("not") {
            return Ok(self.one()?.negated());
        }
        match self.next() {
            Some((_, Token::Open)) => {
                let inside = self.any()?;
                match self.next() {
                    Some((_, Token::Close)) => Ok(inside),
                    Some((at, token)) => Err(SyntaxError::new(
                        at,
                        format!("want 'and', 'or' or ) here, found {token}"),
                    )),
                    None => Err(SyntaxError::new(column, "this ( is not closed")),
                }
            }
            Some((_, Token::Word(word))) => {
                self.terms += 1;
                if self.terms > MAX_TERMS {
                    let problem = format!("a {} has at most {MAX_TERMS} conditions", self.kind);
                    return Err(SyntaxError::new(column, problem));
                }
                T::read(self, column, word)
            }
            Some((_, token)) => {
                Err(SyntaxError::new(column, format!("want a field here, found {token}")))
            }
            None => Err(SyntaxError::new(column, "want a field here, found the end")),
        }
    }

    /// The sign after the field called `word`, or `in`; and whether it is negated: then the sign is the
    /// plain one, `=` for `!=`.
    ///
    /// # Errors
    /// There is none, or one by which the field cannot be asked.
    pub fn sign(
        &mut self,
        word: &str,
        takes: impl Fn(&str) -> bool,
    ) -> Result<(&'static str, bool), SyntaxError> {
        let column = self.column();
        let is_not = self.word("not");
        if self.word("in") {
            if !takes("in") {
                let signs = signs_of(takes);
                let problem = format!("{word:?} cannot be asked by a list; want {signs}");
                return Err(SyntaxError::new(column, problem));
            }
            return Ok(("in", is_not));
        }
        let sign = match self.tokens.first() {
            Some((_, Token::Sign(sign))) if !is_not => *sign,
            _ => {
                let problem =
                    format!("want {} after {word:?}, found {}", signs_of(takes), self.found());
                return Err(SyntaxError::new(self.column(), problem));
            }
        };
        self.next();
        if !takes(sign) {
            let problem = format!("{word:?} cannot be asked by {sign}; want {}", signs_of(takes));
            return Err(SyntaxError::new(column, problem));
        }
        Ok(match sign {
            "!=" => ("=", true),
            "!~" => ("~", true),
            sign => (sign, false),
        })
    }

    /// The values in parentheses that follow `in`, and the column of the first.
    ///
    /// # Errors
    /// There is no list, or it has no end.
    pub fn list(&mut self, word: &str) -> Result<(Vec<String>, usize), SyntaxError> {
        if !matches!(self.tokens.first(), Some((_, Token::Open))) {
            let problem = format!("want ( and a list after 'in', found {}", self.found());
            return Err(SyntaxError::new(self.column(), problem));
        }
        self.next();
        let (mut values, first) = (Vec::new(), self.column());
        loop {
            let at = self.column();
            values.push(self.value(word).map_err(|problem| SyntaxError::new(at, problem))?);
            match self.next() {
                Some((_, Token::Comma)) => {}
                Some((_, Token::Close)) => return Ok((values, first)),
                Some((at, token)) => {
                    let problem = format!("want , or ) in the list, found {token}");
                    return Err(SyntaxError::new(at, problem));
                }
                None => return Err(SyntaxError::new(self.end, "the list has no end; want )")),
            }
        }
    }

    /// A value of the field called `word`.
    ///
    /// # Errors
    /// There is none here.
    pub fn value(&mut self, word: &str) -> Result<String, String> {
        match self.tokens.first() {
            Some((_, Token::Word(value) | Token::Quoted(value))) if !value.is_empty() => {
                self.next();
                Ok(value.clone())
            }
            _ => Err(format!("want a value for {word:?} here, found {}", self.found())),
        }
    }

    /// Counts what a condition costs: values that are listed, and texts that are looked through.
    ///
    /// # Errors
    /// There are too many.
    pub fn count(
        &mut self,
        values: usize,
        searches: usize,
        column: usize,
    ) -> Result<(), SyntaxError> {
        self.values += values;
        self.searches += searches;
        if self.searches > MAX_SEARCHES {
            let problem = format!("a {} asks at most {MAX_SEARCHES} times by ~", self.kind);
            return Err(SyntaxError::new(column, problem));
        }
        if self.values > MAX_VALUES {
            let problem = format!("a {} lists at most {MAX_VALUES} values", self.kind);
            return Err(SyntaxError::new(column, problem));
        }
        Ok(())
    }
}

/// The signs by which something can be asked.
fn signs_of(takes: impl Fn(&str) -> bool) -> String {
    let order = ["=", "!=", "~", "!~", "<", "<=", ">", ">=", "in"];
    let signs: Vec<_> = order.into_iter().filter(|sign| takes(sign)).collect();
    match signs.split_last() {
        Some((last, [])) => (*last).into(),
        Some((last, rest)) => format!("{} or {last}", rest.join(" ")),
        None => String::new(),
    }
}
