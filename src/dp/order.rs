//! `depot dp validate`, `depot redistribute`, `depot dp orders` and `depot dp cancel`: what points are to do once, now.

use crate::{
    distribute::Targets,
    exit::{Exit, Failure},
    output::{Out, table},
    package::Selected,
    several::each,
    transport::{Client, Request, path},
    units,
};
use api::routes::points::{GiveOrder, GivenOrders, OrderStateView, OrderView, TaskView};
use clap::Args;
use http::Method;
use std::{collections::BTreeMap, time::Duration};

/// How often what is watched is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Have a distribution point check what it holds, now, and mend what is not right
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp validate branch-7                        # all that it holds
  depot dp validate branch-7 docs --watch
  depot dp validate branch-7 docs@3 --json | jq -r '.[].number'

The distribution point reads every byte of it from its disk and compares it, at once and ahead of its
slow scrub. What is damaged or lost is not served, and is brought again. With --watch the command waits
for the end: exit code 5 if not all of it became whole.
What came of it later: depot dp orders branch-7")]
pub struct ValidateArgs {
    /// Its name or id
    point: String,
    /// Only this package: NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(value_name = "PKG[@VERSION]")]
    package: Option<Selected>,
    /// Wait for the end, showing how far it is
    #[arg(long)]
    watch: bool,
}

/// Have distribution points check a package and bring what they lack of it, now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot redistribute docs --dp branch-7
  depot redistribute docs@3 --group paris --watch

Each distribution point reads what it holds of the package and compares it, and brings what is damaged
or missing at once: pauses after failures are over. What is right does not travel again. Hours and
rates that are set for a distribution point hold. With --watch the command waits for the end: exit code
5 if not all of it became whole.
What came of it later: depot dp orders branch-7")]
pub struct RedistributeArgs {
    /// NAME, NAME@VERSION or NAME@CHANNEL
    #[arg(value_name = "PKG[@VERSION]")]
    package: Selected,
    #[command(flatten)]
    to: Targets,
    /// Wait for the end, showing how far it is
    #[arg(long)]
    watch: bool,
}

/// List what distribution points were told to do, and what came of it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp orders
  depot dp orders branch-7 --json | jq -c '.[] | select(.state == \"failed\")'

States: waiting (the distribution point has not heard of it, or has others to do first), checking,
mending, done, failed. CHECKED, DAMAGED and MENDED count contents: files, and the lists of them.")]
pub struct OrdersArgs {
    /// Only those of this distribution point, by name or id
    point: Option<String>,
}

/// Cancel what a distribution point was told to do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  depot dp cancel branch-7 4                        # the number is in: depot dp orders branch-7

It stops as soon as it hears of it. What was mended stays so, and what was found damaged is brought
again as any damage is. An order that has ended stays as it is.")]
pub struct CancelArgs {
    /// Its name or id
    point: String,
    /// The order's number
    order: u64,
}

/// Orders a check.
pub async fn validate(args: ValidateArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let order = GiveOrder {
        task: TaskView::Validate,
        package: args.package.as_ref().map(|package| package.name.clone()),
        version: args.package.and_then(|package| package.version),
        point: Some(args.point),
        group: None,
    };
    let given: GivenOrders = client.post("/orders", &order).await?;
    told(given.orders, args.watch, client, out).await
}

/// Orders a check, and what is lacking.
pub async fn redistribute(
    args: RedistributeArgs,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let give = async |(point, group): (Option<&str>, Option<&str>)| {
        let order = GiveOrder {
            task: TaskView::Redistribute,
            package: Some(args.package.name.clone()),
            version: args.package.version.clone(),
            point: point.map(str::to_owned),
            group: group.map(str::to_owned),
        };
        client.post::<GivenOrders>("/orders", &order).await
    };
    let (given, failed) = each(args.to.each(), give).await;
    let mut orders: Vec<OrderView> = given.into_iter().flat_map(|given| given.orders).collect();
    // A point may be named itself and be in a group.
    orders.sort_by(|a, b| (&a.point, a.number).cmp(&(&b.point, b.number)));
    orders.dedup_by(|a, b| (&a.point, a.number) == (&b.point, b.number));
    let told = told(orders, args.watch, client, out).await;
    failed.and(told)
}

/// Lists orders.
pub async fn list(args: OrdersArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let query = [("point", args.point.as_deref())];
    let orders: Vec<OrderView> = client.list("/orders", &query, usize::MAX).await?;
    let rows = orders.iter().map(|order| {
        [
            order.point.clone(),
            order.number.to_string(),
            task_name(order.task).to_owned(),
            what(order).unwrap_or_else(|| "(all)".into()),
            units::when(order.given),
            order.by.clone(),
            state_name(order.state).to_owned(),
            units::count(order.n_checked),
            units::count(order.n_damaged),
            units::count(order.n_mended),
            order.cause.clone().unwrap_or_default(),
        ]
    });
    let columns = [
        "dp", ">order", "task", "package", "given", "by", "state", ">checked", ">damaged",
        ">mended", "cause",
    ];
    out.show(&orders, |w| w.write_all(table(columns, rows.collect()).as_bytes()))
}

/// Cancels an order.
pub async fn cancel(args: CancelArgs, client: &Client, out: Out) -> Result<(), Failure> {
    let at = path(&["points", &args.point, "orders", &args.order.to_string(), "cancel"]);
    let order: OrderView = client.ask(Request::new(Method::POST, &at)).await?;
    out.show(&order, |w| writeln!(w, "{}", in_words(&order)))
}

/// Says what was ordered; or with `watch` waits for its end, and says what came of it.
async fn told(
    orders: Vec<OrderView>,
    watch: bool,
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    if !watch {
        return out
            .show(&orders, |w| orders.iter().try_for_each(|o| writeln!(w, "{}", in_words(o))));
    }
    let ended = tokio::select! {
        ended = watched(orders, client, out) => ended?,
        _ = tokio::signal::ctrl_c() => {
            out.note("the order stands; `depot dp orders` tells what comes of it");
            return Err(Failure::interrupted());
        }
    };
    out.show(&ended, |w| ended.iter().try_for_each(|o| writeln!(w, "{}", in_words(o))))?;
    match ended.iter().any(|order| order.state == OrderStateView::Failed) {
        // What was said has the causes.
        true => Err(Failure::silent(Exit::Damaged)),
        false => Ok(()),
    }
}

/// The orders, once all of them have ended; what changes meanwhile is noted.
async fn watched(
    mut orders: Vec<OrderView>,
    client: &Client,
    out: Out,
) -> Result<Vec<OrderView>, Failure> {
    let mut noted: BTreeMap<(String, u64), String> = BTreeMap::new();
    loop {
        for order in &mut orders {
            if is_end(order.state) {
                continue;
            }
            let number = order.number.to_string();
            match client.get(&path(&["points", &order.point, "orders", &number])).await {
                Ok(now) => *order = now,
                // A site that restarts must not end the watching.
                Err(failure) if failure.may_pass => out.note(&failure.message),
                Err(failure) => return Err(failure),
            }
            let words = in_words(order);
            let key = (order.point.clone(), order.number);
            if !is_end(order.state) && noted.get(&key) != Some(&words) {
                out.note(&words);
                noted.insert(key, words);
            }
        }
        if orders.iter().all(|order| is_end(order.state)) {
            return Ok(orders);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn is_end(state: OrderStateView) -> bool {
    matches!(state, OrderStateView::Done | OrderStateView::Failed)
}

/// `docs@3`; nothing if it is about all.
fn what(order: &OrderView) -> Option<String> {
    let package = order.package.as_ref()?;
    Some(match order.version {
        Some(version) => format!("{package}@{version}"),
        None => package.clone(),
    })
}

fn task_name(task: TaskView) -> &'static str {
    match task {
        TaskView::Validate => "validate",
        TaskView::Redistribute => "redistribute",
    }
}

fn state_name(state: OrderStateView) -> &'static str {
    match state {
        OrderStateView::Waiting => "waiting",
        OrderStateView::Checking => "checking",
        OrderStateView::Mending => "mending",
        OrderStateView::Done => "done",
        OrderStateView::Failed => "failed",
    }
}

/// An order as a sentence.
fn in_words(order: &OrderView) -> String {
    let what = what(order).unwrap_or_else(|| "all that it holds".into());
    let task = task_name(order.task);
    let head = format!("{}: order {}, {task} {what}: ", order.point, order.number);
    let checked = || {
        let contents = units::counted(order.n_checked, "content", "contents");
        let mut text = format!("{contents} checked, {}", units::bytes(order.bytes));
        match order.n_damaged {
            0 => text.push_str(", none damaged"),
            n => text.push_str(&format!(", {n} damaged, {} of them mended", order.n_mended)),
        }
        text
    };
    let cause = order.cause.as_ref().map(|cause| format!("; {cause}")).unwrap_or_default();
    head + &match order.state {
        OrderStateView::Waiting => "given".to_owned(),
        OrderStateView::Checking => format!("checking, {} so far", units::bytes(order.bytes)),
        OrderStateView::Mending => format!("mending: {}{cause}", checked()),
        OrderStateView::Done => format!("done: {}", checked()),
        OrderStateView::Failed => format!("failed: {}{cause}", checked()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order(state: &str) -> OrderView {
        let order = json!({
            "point": "branch-7", "number": 4, "task": "validate", "package": "docs", "version": 3,
            "state": state, "given": "2026-11-22T12:00:00Z", "by": "admin", "n_checked": 812,
            "bytes": 4096, "n_damaged": 3, "n_mended": 1, "cause": "the site is not reached"
        });
        serde_json::from_value(order).expect("an order as the site gives it")
    }

    #[test]
    fn an_order_says_what_was_found_and_what_came_of_it() {
        assert_eq!(in_words(&order("waiting")), "branch-7: order 4, validate docs@3: given");
        assert_eq!(
            in_words(&order("mending")),
            "branch-7: order 4, validate docs@3: mending: 812 contents checked, 4.00 KiB, 3 damaged, \
             1 of them mended; the site is not reached"
        );
        let sound = OrderView { n_damaged: 0, package: None, cause: None, ..order("done") };
        assert_eq!(
            in_words(&sound),
            "branch-7: order 4, validate all that it holds: done: 812 contents checked, 4.00 KiB, \
             none damaged"
        );
    }
}
