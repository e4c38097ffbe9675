//! Automatic deployment rules: which updates are deployed by themselves, when, to whom, and how.
//!
//! In the order to read: what a rule is ([`AutomaticRule`], [`RuleDeployment`]); when it is evaluated ([`Evaluation`])
//! and when what it deploys is available and due ([`After`]); what an evaluation comes to ([`evaluate()`]), which changes
//! nothing; what a run of it did ([`Run`]), and how far its rings are ([`Chain`]); and all of it kept ([`Rules`]). Who opens which of its deployments when is [`crate::ring`].
//!
//! Always true:
//! * an evaluation is a function of the rule, the catalogue, the counts, the group before, and the clock: the preview of a
//!   run and the run come to the same;
//! * what has all its files is deployed, whatever else of it has not: an update that lacks one waits, by name;
//! * a month with a patch day has one evaluation after it, in that month, in every time zone.

mod evaluate;
mod rule;
mod rules;
mod run;
mod schedule;
mod template;
mod times;

pub use evaluate::{Facts, LeftOut, Outcome, Question, Removed, Split, evaluate, split};
pub use rule::{AutomaticRule, BadRule, GroupMode, LicenceTerms, MAX_DEPLOYMENTS, RuleDeployment};
pub use rules::{MAX_RULES, Mark, RuleError, Rules};
pub use run::{Cause, Chain, ChainLink, Ended, NAMED, Run, Step, Waits};
pub use schedule::{BadEvaluation, Calendar, Evaluation};
pub use template::{Template, UnknownTemplate};
pub use times::{After, BadAfter};
