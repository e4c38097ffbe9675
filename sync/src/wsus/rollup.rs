//! What downstream servers report of themselves and of their computers, by the protocol's name rollup.
//!
//! The protocol gives such a caller nothing to show who it is: every call has the same cookie, which says
//! nothing. What anybody who reaches this server could say is worth no record, so it collects none: it
//! asks for no details of computers, looks at the form of what comes all the same, and lets it go. Nothing
//! that is said here changes anything, however often it is said.

use super::messages::{flag, say, text, wrong};
use super::soap::Fault;
use crate::name::UpdateId;
use crate::xml::Element;
use jiff::{Timestamp, civil};

/// Of each kind of report, how many things one call may tell of, less than Windows takes, for whom a call
/// may be larger.
const MAX_SERVERS: usize = 500;
const MAX_COMPUTERS: usize = 1_000;
const MAX_NUMBERS: usize = 10_000;
const MAX_STATUSES: usize = 100;

/// Whether `operation` is one of these.
pub(super) fn is_one(operation: &str) -> bool {
    matches!(
        operation,
        "GetRollupConfiguration"
            | "RollupDownstreamServers"
            | "RollupComputers"
            | "GetOutOfSyncComputers"
            | "RollupComputerStatus"
    )
}

/// Answers one of them. `server` is this server's id, `reset` what changes when all is to be reported anew:
/// never, here.
pub(super) fn answer(call: &Element, server: UpdateId, reset: UpdateId) -> Result<Element, Fault> {
    let response = say(&format!("{}Response", call.name));
    match &*call.name {
        "GetRollupConfiguration" => {
            let result = say("GetRollupConfigurationResult")
                .holding(flag("DoDetailedRollup", false))
                .holding(text("RollupResetGuid", reset.to_string()))
                .holding(text("ServerId", server.to_string()))
                .holding(text("RollupDownstreamServersMaxBatchSize", MAX_SERVERS.to_string()))
                .holding(text("RollupComputersMaxBatchSize", MAX_COMPUTERS.to_string()))
                .holding(text("GetOutOfSyncComputersMaxBatchSize", MAX_NUMBERS.to_string()))
                .holding(text("RollupComputerStatusMaxBatchSize", MAX_STATUSES.to_string()));
            Ok(response.holding(result))
        }
        "RollupDownstreamServers" => {
            time(call)?;
            for it in list(call, "downstreamServers", "DownstreamServerRollupInfo", MAX_SERVERS)? {
                let is_right = id(it, "ServerId").and(id(it, "ParentServerId")).is_some();
                is_right.then_some(()).ok_or_else(|| wrong("downstreamServers"))?;
            }
            Ok(response)
        }
        "RollupComputers" => {
            time(call)?;
            for it in list(call, "computers", "ComputerRollupInfo", MAX_COMPUTERS)? {
                let is_right = it.attribute("ComputerId").is_some_and(|id| !id.is_empty());
                is_right.then_some(()).ok_or_else(|| wrong("computers"))?;
            }
            // Of none it is known that it is gone, or follows another server.
            Ok(response.holding(say("RollupComputersResult")))
        }
        "GetOutOfSyncComputers" => {
            parent(call)?;
            for it in list(call, "lastRollupNumbers", "ComputerLastRollupNumber", MAX_NUMBERS)? {
                let number = it.text_of("RollupNumber").and_then(|it| it.parse::<i32>().ok());
                number.ok_or_else(|| wrong("lastRollupNumbers"))?;
            }
            // Of none is anything missing here.
            Ok(response.holding(say("GetOutOfSyncComputersResult")))
        }
        _ => {
            time(call)?;
            parent(call)?;
            for it in list(call, "computers", "ComputerStatusRollupInfo", MAX_STATUSES)? {
                id(it, "InstanceId").ok_or_else(|| wrong("computers"))?;
            }
            // Dealt with; false would be: too busy, again later.
            Ok(response.holding(flag("RollupComputerStatusResult", true)))
        }
    }
}

/// The things that the call tells of; more than it may are refused.
fn list<'a>(
    call: &'a Element,
    name: &str,
    each: &'a str,
    most: usize,
) -> Result<impl Iterator<Item = &'a Element>, Fault> {
    let list = call.child(name);
    let all = move || list.into_iter().flat_map(move |list| list.all(each));
    if all().nth(most).is_some() {
        return Err(wrong(name));
    }
    Ok(all())
}

fn id(of: &Element, name: &str) -> Option<UpdateId> {
    of.text_of(name)?.parse().ok()
}

fn parent(call: &Element) -> Result<(), Fault> {
    id(call, "parentServerId").map(drop).ok_or_else(|| wrong("parentServerId"))
}

/// The caller's clock must say some time, with an offset or without; which one is of no use here.
fn time(call: &Element) -> Result<(), Fault> {
    let said = call.text_of("clientTime").unwrap_or_default();
    let is_time = said.parse::<Timestamp>().is_ok() || said.parse::<civil::DateTime>().is_ok();
    is_time.then_some(()).ok_or_else(|| wrong("clientTime"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(call: Element) -> Result<Element, Fault> {
        answer(&call, UpdateId::named(&["server"]), UpdateId::named(&["reset"]))
    }

    #[test]
    fn what_is_reported_is_looked_at_and_let_go() {
        let now = || text("clientTime", "2026-11-27T10:00:00.1234567+01:00");
        let id = UpdateId::named(&["x"]).to_string();
        let server = || {
            say("DownstreamServerRollupInfo")
                .holding(text("ServerId", &id))
                .holding(text("ParentServerId", "00000000-0000-0000-0000-000000000000"))
        };
        let servers = |n: usize| {
            let all = say("downstreamServers").holding_all((0..n).map(|_| server()));
            say("RollupDownstreamServers").holding(now()).holding(all)
        };
        assert_eq!(ask(servers(500)), Ok(say("RollupDownstreamServersResponse")));
        assert_eq!(ask(servers(501)), Err(wrong("downstreamServers")));
        let timeless = say("RollupDownstreamServers").holding(say("downstreamServers"));
        assert_eq!(ask(timeless), Err(wrong("clientTime")));
        let nobody = say("downstreamServers").holding(say("DownstreamServerRollupInfo"));
        let call = say("RollupDownstreamServers").holding(now()).holding(nobody);
        assert_eq!(ask(call), Err(wrong("downstreamServers")));

        let one = say("ComputerRollupInfo").with("ComputerId", "a");
        let call = |one: Element| {
            let all = say("computers").holding(one);
            say("RollupComputers").holding(text("clientTime", "2026-11-27T10:00:00")).holding(all)
        };
        assert!(ask(call(one)).unwrap().child("RollupComputersResult").is_some());
        assert_eq!(ask(call(say("ComputerRollupInfo"))), Err(wrong("computers")));
        assert_eq!(ask(say("GetOutOfSyncComputers")), Err(wrong("parentServerId")));
        let call = say("RollupComputerStatus").holding(now()).holding(text("parentServerId", &id));
        let said = ask(call).unwrap().text_of("RollupComputerStatusResult");
        assert_eq!(said.as_deref(), Some("true"));
    }
}
