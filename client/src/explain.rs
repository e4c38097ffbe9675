//! Why an update is in its state: the tree of the decision, with what the machine has beside each condition.
//!
//! Every part of the rules is asked, not only as many as it takes. `decides` marks the conditions that the
//! state follows from: those that are all that kept an answer from being another.

use crate::applicability::leaf::{self, Scope, Tell};
use crate::applicability::{Assessor, Verdict};
use crate::truth::Truth;
use serde::Serialize;
use std::fmt::{self, Write};
use sync::name::UpdateId;
use sync::rule::{Comparison, Rule, Rules};
use sync::update::{AnyOf, Update};

/// How many nodes a tree has at most; what is beyond is left out, and said to be.
const MAX_NODES: usize = 5_000;
/// How many deciding conditions are named in one sentence.
const MAX_NAMED: usize = 3;

/// Why an update is in its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Which update.
    pub update: UpdateId,
    /// What it is called.
    pub name: String,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The questions that were asked of it.
    pub questions: Vec<Node>,
    /// Whether something was left out, since there is too much.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_cut: bool,
}

/// A question, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// What is asked.
    pub asks: String,
    /// The answer.
    pub answer: Truth,
    /// What the machine has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has: Option<String>,
    /// Whether the state follows from it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub decides: bool,
    /// What it is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Node>,
    /// How the parts make it.
    #[serde(skip)]
    made: Made,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Made {
    Leaf,
    OfAll,
    OfAny,
    Against,
}

/// Explains the state of an update.
pub fn explain(assessor: &mut Assessor<'_>, update: &Update) -> Explanation {
    let verdict = assessor.assess(update);
    let truths = assessor.truths(update);
    let mut drawing = Drawing { assessor, left: MAX_NODES };
    let mut questions = Vec::new();
    let kinds = [("requires", &update.prerequisites), ("is a bundle of", &update.bundles)];
    for (asks, groups) in kinds {
        if !groups.is_empty() {
            let parts: Vec<Node> = groups.iter().map(|group| drawing.group(group)).collect();
            let answer = Truth::all(parts.iter().map(|part| part.answer));
            questions.push(node(asks.into(), answer, Made::OfAll, parts));
        }
    }
    drawing.rules(update, &update.rules, "", &mut questions);
    for (at, item) in update.items.iter().enumerate().filter(|(_, it)| !it.rules.is_empty()) {
        drawing.rules(update, &item.rules, &format!("item {}: ", at + 1), &mut questions);
    }
    let is_cut = drawing.left == 0;
    // Of one that is for other machines no question decides more than another.
    for question in &mut questions {
        let decides = match question.asks.rsplit(": ").next() {
            Some("requires") => truths.prerequisites != Truth::True,
            _ if truths.prerequisites == Truth::False => false,
            Some("is superseded") => truths.superseded != Truth::False,
            _ if truths.superseded == Truth::True => false,
            Some("is installed") => {
                truths.installed == Truth::Unknown || question.answer == Truth::True
            }
            Some("is a bundle of") => true,
            _ => truths.installed == Truth::False,
        };
        if decides {
            question.mark();
        }
    }
    Explanation { update: update.id, name: update.name.clone(), verdict, questions, is_cut }
}

impl Explanation {
    /// The conditions that the state follows from.
    pub fn deciding(&self) -> Vec<&Node> {
        let mut found = Vec::new();
        for question in &self.questions {
            question.deciding(&mut found);
        }
        found
    }

    /// In one line, why.
    pub fn reason(&self) -> String {
        if let Some(why) = &self.verdict.why {
            return why.clone();
        }
        if self.verdict.awaits_restart {
            return "it is installed, and the machine was not restarted since".into();
        }
        let mut said: Vec<&str> = Vec::new();
        for has in self.deciding().into_iter().filter_map(|node| node.has.as_deref()) {
            if !said.contains(&has) {
                said.push(has);
            }
        }
        let more = said.len().saturating_sub(MAX_NAMED);
        said.truncate(MAX_NAMED);
        match (said.is_empty(), more) {
            (true, _) => "it has no condition that says otherwise".into(),
            (_, 0) => said.join("; "),
            (_, more) => format!("{}; and {more} more", said.join("; ")),
        }
    }
}

struct Drawing<'d, 'a> {
    assessor: &'d Assessor<'a>,
    left: usize,
}

impl Drawing<'_, '_> {
    fn rules(&mut self, update: &Update, rules: &Rules, before: &str, into: &mut Vec<Node>) {
        let scope = Scope::of(update, rules);
        let asked = [
            ("is superseded", &rules.superseded),
            ("is installed", &rules.installed),
            ("can be installed", &rules.installable),
        ];
        for (asks, rule) in asked {
            if let Some(part) = rule.as_ref().and_then(|rule| self.rule(rule, &scope)) {
                into.push(node(format!("{before}{asks}"), part.answer, Made::OfAll, vec![part]));
            }
        }
    }

    /// The tree of a rule; none, if there is no room.
    fn rule(&mut self, rule: &Rule, scope: &Scope<'_>) -> Option<Node> {
        self.left = self.left.checked_sub(1)?;
        let (asks, made, parts) = match rule {
            Rule::And(parts) => ("all of", Made::OfAll, parts.as_slice()),
            Rule::Or(parts) => ("one of", Made::OfAny, parts.as_slice()),
            Rule::Not(part) => ("not", Made::Against, std::slice::from_ref(&**part)),
            leaf => return Some(self.leaf(leaf, scope)),
        };
        let answer = self.assessor.holds(rule, scope);
        let parts = parts.iter().map_while(|part| self.rule(part, scope)).collect();
        Some(node(asks.into(), answer, made, parts))
    }

    fn leaf(&self, rule: &Rule, scope: &Scope<'_>) -> Node {
        let mut has = String::new();
        let answer = match rule {
            Rule::True => Truth::True,
            Rule::False => Truth::False,
            leaf => leaf::holds(leaf, self.assessor.facts(), scope, &mut Tell::into(&mut has)),
        };
        let has = Some(has).filter(|has| !has.is_empty());
        Node { has, ..node(in_words(rule), answer, Made::Leaf, Vec::new()) }
    }

    fn group(&mut self, group: &AnyOf) -> Node {
        let otherwise = if group.is_category { Truth::True } else { Truth::Unknown };
        let mut parts = Vec::new();
        for id in &group.ids {
            self.left = match self.left.checked_sub(1) {
                Some(left) => left,
                None => break,
            };
            let answer = self.assessor.other_is_there(*id, otherwise);
            let (name, has) = match self.assessor.catalogue().update(*id) {
                Some(_) if self.assessor.is_in_circle(*id) => {
                    (id.to_string(), "it requires an update that requires it".to_owned())
                }
                Some(other) => {
                    let word = match answer {
                        Truth::True => "is there",
                        Truth::False => "is not there",
                        Truth::Unknown => "may be there or not",
                    };
                    (other.name.clone(), format!("{} {word}", other.name))
                }
                None => (id.to_string(), format!("{id} is not in the catalogue")),
            };
            parts.push(Node { has: Some(has), ..node(name, answer, Made::Leaf, Vec::new()) });
        }
        let answer = Truth::any(parts.iter().map(|part| part.answer));
        node("one of".into(), answer, Made::OfAny, parts)
    }
}

fn node(asks: String, answer: Truth, made: Made, parts: Vec<Node>) -> Node {
    Node { asks, answer, has: None, decides: false, parts, made }
}

impl Node {
    /// Marks what its answer follows from.
    fn mark(&mut self) {
        self.decides = true;
        let answer = self.answer;
        // One part is enough for the answer that one part can give; for the other all are needed.
        let one_is_enough = match self.made {
            Made::OfAll => answer == Truth::False,
            Made::OfAny => answer == Truth::True,
            Made::Leaf | Made::Against => false,
        };
        if self.made == Made::Against {
            self.parts.iter_mut().for_each(Node::mark);
            return;
        }
        let parts = self.parts.iter_mut().filter(|part| part.answer == answer);
        parts.take(if one_is_enough { 1 } else { usize::MAX }).for_each(Node::mark);
    }

    fn deciding<'n>(&'n self, found: &mut Vec<&'n Node>) {
        if !self.decides {
            return;
        }
        if self.made == Made::Leaf {
            found.push(self);
        }
        self.parts.iter().for_each(|part| part.deciding(found));
    }

    fn draw(&self, depth: usize, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = match self.answer {
            Truth::True => "yes",
            Truth::False => "no",
            Truth::Unknown => "unknown",
        };
        let mark = if self.decides { '*' } else { ' ' };
        write!(f, "{mark} {}{}: {answer}", "  ".repeat(depth), self.asks)?;
        if let Some(has) = &self.has {
            write!(f, " ({has})")?;
        }
        f.write_char('\n')?;
        self.parts.iter().try_for_each(|part| part.draw(depth + 1, f))
    }
}

impl fmt::Display for Explanation {
    /// For people: the state and its reason, then the tree; what decides has a star in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} is {}: {}", self.name, self.verdict.state, self.reason())?;
        self.questions.iter().try_for_each(|question| question.draw(0, f))?;
        if self.is_cut {
            writeln!(f, "  … more is left out")?;
        }
        Ok(())
    }
}

/// A condition as people read it.
fn in_words(rule: &Rule) -> String {
    let package = |rule: &sync::rule::PackageRule| {
        let arch = rule.arch.as_deref().map(|arch| format!(":{arch}")).unwrap_or_default();
        format!("{}{arch} is installed, {} {}", rule.name, rule.is.in_words(), rule.version)
    };
    match rule {
        Rule::True => "always".into(),
        Rule::False => "never".into(),
        Rule::Codename(name) => format!("the machine runs {name}"),
        Rule::Release { id, major } => format!("the machine runs {id} {major}"),
        Rule::Dpkg(rule) => package(rule),
        Rule::Rpm(rule) => {
            let module = rule.module.as_deref().map(|module| format!(" of {module}"));
            format!("{}{}", package(&rule.package), module.unwrap_or_default())
        }
        Rule::Windows(rule) => {
            let mut text = rule.name.clone();
            for (key, value) in &rule.attributes {
                let _ = match Comparison::of_word(value).filter(|_| key == "Comparison") {
                    Some(is) => write!(text, " {}", is.in_words()),
                    None => {
                        write!(text, " {key}={}", value.chars().take(200).collect::<String>())
                    }
                };
            }
            text
        }
        Rule::And(_) | Rule::Or(_) | Rule::Not(_) => String::new(),
    }
}
