//! `depot rule add-deployment`, and what is said to rings.

use crate::{
    deployment::deploy::{ExperienceArgs, percent},
    exit::Failure,
    output::Out,
    transport::{Client, path},
};
use ::deployment::policy::Experience;
use ::deployment::window::Clock;
use api::routes::deployments::{RingBody, RingChainView, RingWord, RuleDeploymentBody, RuleView};
use clap::Args;

/// A deployment of a rule.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot rule add-deployment patch-day rest --collection all --deadline 7d --after-days 3 --success 95 --halt 2%
  depot rule add-deployment patch-day servers --collection servers --deadline '7d 20:00' --local-time --by-hand \\
      --after-days 7 --suppress-restart servers
  depot rule add-deployment patch-day kiosks --collection kiosks --visibility hidden --deadline 1d

All deployments of a rule share its group and package. With --after-days, --success, --halt or --by-hand
it is a ring: it opens when the one before it went well, and not at all when too many of its machines fail, until
`depot rule resume`. The group that the last run filled is deployed by it, too.")]
pub struct AddDeploymentArgs {
    /// The rule
    rule: String,
    /// What the rule calls the deployment
    deployment: String,
    /// To whom
    #[arg(long, value_name = "COLLECTION")]
    collection: String,
    #[command(flatten)]
    how: DeploymentArgs,
    /// A ring: so many days after the one before opened
    #[arg(long, value_name = "N")]
    after_days: Option<u16>,
    /// A ring: so many percent of the machines before it have the updates
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    success: Option<u8>,
    /// A ring: so many failures halt what follows, as 5% or 20; or never
    #[arg(long, value_name = "N")]
    halt: Option<String>,
    /// A ring: a person has to say `depot rule go` as well
    #[arg(long)]
    by_hand: bool,
}

/// When and how.
#[derive(Debug, Args)]
pub struct DeploymentArgs {
    /// When updates are available, from the scheduled start of the run: 0h, 4h, 7d, '7d 20:00'
    #[arg(long, value_name = "AFTER")]
    available: Option<String>,
    /// When they must be installed; without it they wait for the user
    #[arg(long, value_name = "AFTER")]
    deadline: Option<String>,
    /// Times are by the clock of each client
    #[arg(long)]
    local_time: bool,
    /// Make it, and tell clients nothing of it until somebody enables it
    #[arg(long)]
    disabled: bool,
    /// Warn if fewer machines comply once the deadline is over: 90%
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    alert_below: Option<u8>,
    /// How it is carried out.
    #[command(flatten)]
    experience: ExperienceArgs,
}

impl DeploymentArgs {
    /// Whether anything of when it is was said.
    pub fn is_given(&self) -> bool {
        self.available.is_some()
            || self.deadline.is_some()
            || self.local_time
            || self.disabled
            || self.alert_below.is_some()
    }

    /// The deployment of that name to that collection.
    pub fn body(self, name: String, collection: String) -> RuleDeploymentBody {
        let mut experience = Experience::default();
        self.experience.lay_on(&mut experience);
        RuleDeploymentBody {
            name,
            collection,
            enabled: !self.disabled,
            available: self.available.unwrap_or_else(|| "0h".into()),
            deadline: self.deadline,
            clock: if self.local_time { Clock::Local } else { Clock::Utc },
            experience,
            alert_below: self.alert_below,
            ring: None,
        }
    }
}

/// Gives a rule a deployment.
pub async fn add(args: AddDeploymentArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let is_ring =
        args.after_days.is_some() || args.success.is_some() || args.halt.is_some() || args.by_hand;
    let ring = RingBody::default();
    let ring = RingBody {
        after_days: args.after_days.unwrap_or(ring.after_days),
        success: args.success.unwrap_or(ring.success),
        halt: args.halt.unwrap_or(ring.halt),
        by_hand: args.by_hand,
    };
    let mut body = args.how.body(args.deployment.clone(), args.collection);
    body.ring = is_ring.then_some(ring);
    let at = path(&["rules", &args.rule, "deployments", &args.deployment]);
    let view: RuleView = client.put(&at, &body).await?;
    out.show(&view, |w| {
        writeln!(
            w,
            "rule {} has the deployment {} to {}",
            args.rule, args.deployment, body.collection
        )
    })
}

/// Says something to rings, and shows how those of each group that was meant are then.
pub async fn say(
    rule: &str,
    word: &str,
    deployment: Option<String>,
    group: Option<String>,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let word = RingWord { say: word.into(), deployment, group };
    let chains: Vec<RingChainView> = client.post(&path(&["rules", rule, "rings"]), &word).await?;
    out.show(&chains, |w| chains.iter().try_for_each(|chain| super::show::chain(w, chain)))
}
