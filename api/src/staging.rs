//! What is deployed, brought to the distribution points near the machines that require it.
//!
//! [`deployment::staging`] decides; here is gathered what it decides from, and its plan becomes assignments, which carry
//! a mark by which they are taken back once nothing needs them any more.

use crate::audit::AuditRecord;
use crate::auth::Identity;
use crate::problem::Problem;
use crate::site::{Site, blocking};
use ::sync::name::UpdateId;
use compliance::message::State;
use deployment::staging::{Fleet, Package, Place, Plan, Point, Staged, plan};
use dp::field::PointId;
use dp::registry::{BoundaryGroupName, Restaged, Sought};
use jiff::{SignedDuration, Timestamp};
use packager::PackageName;
use packager::name::Selector;
use roaring::RoaringBitmap;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How soon it is looked again, and how late.
const SOONEST: Duration = Duration::from_secs(15);
const LATEST: Duration = Duration::from_secs(15 * 60);

/// What a plan is about, by the places that its lines name, and the plan.
pub(crate) struct Staging {
    pub deployments: Vec<String>,
    pub packages: Vec<(PackageName, u64)>,
    pub points: Vec<(PointId, String)>,
    pub places: Vec<String>,
    pub plan: Plan,
}

impl Staging {
    /// What is to be assigned.
    pub fn wanted(&self) -> BTreeSet<(PackageName, PointId)> {
        let assigned = self.plan.assigned().into_iter();
        assigned
            .map(|(point, package)| {
                let (package, _) = &self.packages[package as usize];
                let (point, _) = &self.points[point as usize];
                (package.clone(), point.clone())
            })
            .collect()
    }

    /// What is to lie where now.
    pub fn of(site: &Site, now: Timestamp) -> Result<Self, Problem> {
        let (fleet, content) = (site.fleet()?, site.content()?);
        let deployed = fleet.deployments.with_groups();
        let ids: BTreeSet<UpdateId> = deployed
            .iter()
            .filter(|(_, it, _)| it.enabled)
            .flat_map(|(.., group)| group.ids())
            .collect();
        let holders = site.deployed().whole_in(site, ids)?;
        let mut names: BTreeMap<PackageName, Package> = BTreeMap::new();
        for (id, it) in &holders {
            for name in fewest(site, &it.packages)? {
                names.entry(name).or_default().updates.insert(*id);
            }
        }
        let (mut packages, mut shown, mut newest) = (Vec::new(), Vec::new(), Vec::new());
        for (name, mut package) in names {
            let latest = content.packages.show(&name)?.latest;
            package.bytes = latest.as_ref().map_or(0, |latest| latest.bytes);
            package.name = name.to_string();
            newest.push(latest.map(|latest| latest.version));
            shown.push((name, package.bytes));
            packages.push(package);
        }
        // Machines on which a bundle is required need its parts.
        let mut bundles: HashMap<UpdateId, Vec<UpdateId>> = HashMap::new();
        for (id, it) in &holders {
            it.parts.iter().for_each(|part| bundles.entry(*part).or_default().push(*id));
        }
        let updates: Vec<Vec<UpdateId>> =
            deployed.iter().map(|(.., group)| with_parts(group.ids(), &holders)).collect();
        let members: Vec<Arc<RoaringBitmap>> = deployed
            .iter()
            .map(|(_, it, _)| fleet.members(&it.collection).unwrap_or_default())
            .collect();
        let names = shown.iter().map(|(name, _)| name);
        let newest = names.zip(newest).map(|(name, latest)| Some((name, latest?)));
        let (points, ids_of) = points_of(site, &shown, &Sought::new(newest))?;
        let places = places_of(site, &ids_of)?;
        let known: RefCell<HashMap<UpdateId, RoaringBitmap>> = RefCell::default();
        let required = |id: UpdateId| {
            let all = [id].into_iter().chain(bundles.get(&id).into_iter().flatten().copied());
            let mut known = known.borrow_mut();
            let ask = || {
                all.map(|id| fleet.states.having(id, State::Required, None))
                    .fold(RoaringBitmap::new(), |all, its| all | its)
            };
            known.entry(id).or_insert_with(ask).clone()
        };
        let staged = deployed.iter().zip(&members).zip(&updates);
        let fleet = Fleet {
            deployments: staged
                .map(|(((_, it, _), members), updates)| Staged {
                    name: it.name.to_string(),
                    enabled: it.enabled,
                    available: it.available,
                    collection: it.collection.clone(),
                    members,
                    updates,
                })
                .collect(),
            packages,
            points,
            places: places.iter().map(|(_, place)| place.clone()).collect(),
            required: &required,
            lead: lead(site),
            now,
        };
        let plan = plan(&fleet);
        Ok(Self {
            deployments: fleet.deployments.iter().map(|it| it.name.clone()).collect(),
            points: ids_of.into_iter().zip(fleet.points.iter().map(|it| it.name.clone())).collect(),
            places: places.into_iter().map(|(name, _)| name.to_string()).collect(),
            packages: shown,
            plan,
        })
    }
}

/// How long before something is available it is brought.
fn lead(site: &Site) -> SignedDuration {
    SignedDuration::try_from(site.config().deployment.staging_lead).unwrap_or(SignedDuration::MAX)
}

/// Of the packages that have an update those that are not mirrors; the mirrors, if there are only such. A mirror has all of a
/// repository, and is much to bring for an update.
fn fewest(site: &Site, packages: &[PackageName]) -> Result<Vec<PackageName>, Problem> {
    let db = &site.ledger()?.db;
    let mut own = Vec::new();
    for name in packages {
        if crate::mirror::of(db, name)?.is_none() {
            own.push(name.clone());
        }
    }
    Ok(if own.is_empty() { packages.to_vec() } else { own })
}

/// Updates with the parts of those that are bundles.
fn with_parts(
    ids: impl Iterator<Item = UpdateId>,
    holders: &HashMap<UpdateId, crate::deployed::Holders>,
) -> Vec<UpdateId> {
    let (mut all, mut next) = (BTreeSet::new(), ids.collect::<Vec<_>>());
    while let Some(id) = next.pop() {
        if all.insert(id) {
            next.extend(holders.get(&id).into_iter().flat_map(|it| it.parts.iter().copied()));
        }
    }
    // A bundle itself has no files.
    all.retain(|id| {
        holders.get(id).is_none_or(|it| it.parts.is_empty() || !it.packages.is_empty())
    });
    all.into_iter().collect()
}

/// The points that clients may be sent to, and of these packages: what people distributed to each, what was staged there, and
/// whose newest version each says to hold.
fn points_of(
    site: &Site,
    packages: &[(PackageName, u64)],
    newest: &Sought,
) -> Result<(Vec<Point>, Vec<PointId>), Problem> {
    let registry = &site.ledger()?.registry;
    let number: HashMap<&PackageName, u32> =
        packages.iter().map(|(name, _)| name).zip(0..).collect();
    let staged = registry.staged();
    let mut by_person: HashMap<PointId, BTreeSet<u32>> = HashMap::new();
    let groups: HashMap<_, _> =
        registry.groups().into_iter().map(|group| (group.name, group.members)).collect();
    for it in registry.assignments(None).into_iter().filter(|it| it.is_by_a_person()) {
        // Another version than the newest may not have what is deployed.
        let Some(package) = number.get(&it.package).filter(|_| it.version == Selector::Latest)
        else {
            continue;
        };
        let to: Vec<PointId> = match &it.to {
            dp::registry::Target::Point(id) => vec![id.clone()],
            dp::registry::Target::Group(name) => {
                groups.get(name).into_iter().flatten().cloned().collect()
            }
        };
        for id in to {
            by_person.entry(id).or_default().insert(*package);
        }
    }
    let mut staged_on: HashMap<PointId, BTreeSet<u32>> = HashMap::new();
    for (package, point) in staged {
        if let Some(package) = number.get(&package) {
            staged_on.entry(point).or_default().insert(*package);
        }
    }
    let (mut points, mut ids) = (Vec::new(), Vec::new());
    for point in registry.points() {
        let free = registry.standing(&point.id).map_or(0, |standing| standing.free_bytes);
        points.push(Point {
            name: point.name.to_string(),
            free,
            staged: staged_on.remove(&point.id).unwrap_or_default(),
            distributed: by_person.remove(&point.id).unwrap_or_default(),
            holds: registry.holding(&point.id, newest)?,
        });
        ids.push(point.id);
    }
    Ok((points, ids))
}

/// The boundary groups, each with its points and the clients in it.
fn places_of(site: &Site, points: &[PointId]) -> Result<Vec<(BoundaryGroupName, Place)>, Problem> {
    let (fleet, places) = (site.fleet()?, site.ledger()?.registry.places());
    let number: HashMap<&PointId, u32> = points.iter().zip(0..).collect();
    let mut all: BTreeMap<BoundaryGroupName, Place> = places
        .points_of()
        .map(|(name, points)| {
            let points = points.iter().filter_map(|id| number.get(id).copied()).collect();
            (name.clone(), Place { name: name.to_string(), points, ..Place::default() })
        })
        .collect();
    let index = fleet.states.index();
    for client in index.fleet() {
        for group in places.groups_of(index.addresses(client)) {
            if let Some(place) = all.get_mut(&group) {
                place.clients.insert(client);
            }
        }
    }
    Ok(all.into_iter().collect())
}

/// Makes assignments of the plan, and takes back those that it has no more.
pub(crate) fn apply(site: &Site, now: Timestamp) -> Result<Restaged, Problem> {
    let ledger = site.ledger()?;
    // A site without points, or with nothing deployed, has nothing to gather.
    let is_idle = ledger.registry.points().is_empty()
        || (site.fleet()?.deployments.all().is_empty() && ledger.registry.staged().is_empty());
    if is_idle || !site.config().deployment.staging {
        return Ok(Restaged::default());
    }
    let wanted = Staging::of(site, now)?.wanted();
    let done = ledger.registry.stage(&wanted, now)?;
    let by = Identity { name: "staging".into(), ..Identity::local_admin() };
    for (action, all) in [("assign", &done.assigned), ("unassign", &done.released)] {
        for (package, point) in all {
            let to = ledger.registry.name_of(&dp::registry::Target::Point(point.clone()));
            ledger.audit.write(&AuditRecord::new(
                &by,
                action,
                format!("{package} to point/{to}"),
                200,
            ))?;
        }
    }
    Ok(done)
}

/// Stages what is deployed as soon as updates, deployments or packages change, and then has clients hear of it; and looks again and
/// again, as machines and points change too. Seldom enough that the one costs a fifth of the time, the other a twentieth.
pub(crate) async fn follow(site: Site, stop: CancellationToken) {
    let (mut soonest, mut latest) = (Instant::now(), Instant::now() + SOONEST);
    loop {
        let woken = async {
            tokio::select! {
                () = sleep_until(latest) => {}
                () = site.deployed().to_stage() => sleep_until(soonest).await,
            }
        };
        if stop.run_until_cancelled(woken).await.is_none() {
            return;
        }
        let (its_site, began) = (site.clone(), Instant::now());
        match blocking(move || stage(&its_site)).await {
            Ok(done) if done == Restaged::default() => {}
            Ok(done) => {
                let (assigned, released) = (done.assigned.len(), done.released.len());
                tracing::info!(assigned, released, "what is deployed is brought to points");
            }
            Err(problem) => tracing::warn!(%problem, "nothing is staged; it is tried again"),
        }
        let took = began.elapsed();
        soonest = Instant::now() + took * 4;
        latest = Instant::now() + (took * 20).clamp(SOONEST, LATEST);
    }
}

/// Stages what is deployed, and has clients hear of it, though it cannot be staged.
fn stage(site: &Site) -> Result<Restaged, Problem> {
    let staging = site.deployed().begin_staging();
    let done = apply(site, Timestamp::now());
    if let Some(staging) = staging {
        site.deployed().staged(site, staging)?;
    }
    done
}
