//! A third-party catalogue as a source of updates.
//!
//! The catalogue is one file on the web or on this machine, or a folder of them. It is brought when
//! it changed, believed when its signature or its digest says so, and read whole: what it does not
//! have any more is gone. A catalogue may have a package twice, issued again; the newest is taken.
//! Packages that it does not have may well be named as replaced by one it has: they are kept as
//! they are named.

use super::brought::{Brought, Settings};
use super::cab::Limits as CabLimits;
use super::{container, package};
use crate::adapter::{Adapter, Extent, Fetched, Read, Run, Said, Skipped, Stage};
use crate::error::{Cause, SyncError};
use crate::name::UpdateId;
use crate::xml::{self, Element};
use futures::future::BoxFuture;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

/// Packages of one catalogue.
const MAX_PACKAGES: usize = 500_000;

/// The source.
#[derive(Clone, Debug)]
pub struct SdpSource {
    catalogue: Brought,
}

impl SdpSource {
    /// The source with those settings.
    ///
    /// # Errors
    /// They cannot work: the address is of another kind, or a digest is none.
    pub fn new(settings: Settings) -> Result<Self, SyncError> {
        Ok(Self { catalogue: Brought::new(settings)? })
    }

    /// Gives each package of the catalogue to `take`, with its number.
    fn packages(
        &self,
        run: &Run,
        skipped: &mut Skipped,
        take: &mut dyn FnMut(usize, &Element, &mut Skipped) -> Result<(), SyncError>,
    ) -> Result<usize, SyncError> {
        let path = self.catalogue.path(run);
        let mut n = 0;
        let mut known = false;
        container::documents(&path, CabLimits::default(), &mut |name, from| {
            known |= in_document(name, from, &mut |element| {
                run.watch.moved();
                run.watch.check()?;
                n += 1;
                if n > MAX_PACKAGES {
                    let detail = format!("the catalogue has more than {MAX_PACKAGES} packages");
                    return Err(SyncError::new(Cause::TooLarge, detail));
                }
                take(n, element, skipped)
            })?;
            Ok(())
        })?;
        match known {
            true => Ok(n),
            false => Err(SyncError::new(
                Cause::Malformed,
                format!(
                    "{} is no catalogue of Updates Publisher: no package is in it",
                    self.catalogue.url()
                ),
            )),
        }
    }
}

impl Adapter for SdpSource {
    fn fetch<'a>(
        &'a self,
        run: &'a Run,
        state: Option<&'a serde_json::Value>,
    ) -> BoxFuture<'a, Result<Fetched, SyncError>> {
        Box::pin(self.catalogue.bring(run, state))
    }

    fn read(
        &self,
        run: &Run,
        _: Option<&serde_json::Value>,
        take: &mut dyn FnMut(Said) -> Result<(), SyncError>,
    ) -> Result<Read, SyncError> {
        run.stage(Stage::Parse)?;
        let state = self.catalogue.state(run)?;
        // First which packages are the newest, then those alone: each is said once.
        let mut newest: BTreeMap<UpdateId, (Timestamp, usize)> = BTreeMap::new();
        let mut skipped = Skipped::default();
        self.packages(run, &mut Skipped::default(), &mut |n, element, _| {
            if let Some((id, created)) = package::identity(element) {
                let found = newest.entry(id).or_insert((created, n));
                if created >= found.0 {
                    *found = (created, n);
                }
            }
            Ok(())
        })?;
        let mut products = BTreeSet::new();
        self.packages(run, &mut skipped, &mut |n, element, skipped| {
            let identity = package::identity(element);
            let is_older = identity.and_then(|(id, _)| newest.get(&id)).is_some_and(|it| it.1 != n);
            if is_older {
                return Ok(());
            }
            run.watch.read()?;
            let package = match package::read(element) {
                Ok(package) => package,
                Err(error) => {
                    skipped.add(error);
                    return Ok(());
                }
            };
            if let Some(product) = package.product
                && products.insert(product.clone())
            {
                take(Said::Product(product))?;
            }
            take(Said::Update(Box::new(package.update)))
        })?;
        Ok(Read { extent: Extent::Whole, state, skipped })
    }
}

/// Gives each package of a document to `take`; whether it is a document of packages.
fn in_document(
    name: &str,
    from: &mut dyn BufRead,
    take: &mut dyn FnMut(&Element) -> Result<(), SyncError>,
) -> Result<bool, SyncError> {
    let mut reader = xml::Reader::new(from, xml::Limits::default());
    let failed = |error: xml::XmlError| error.of(name);
    let Some(root) = reader.enter().map_err(failed)? else { return Ok(false) };
    match &*root.name {
        "SystemsManagementCatalog" => {
            while let Some(child) = reader.child().map_err(failed)? {
                if &*child.name == "SoftwareDistributionPackage" {
                    take(&child)?;
                }
            }
            Ok(true)
        }
        "SoftwareDistributionPackage" => {
            take(&reader.rest(root).map_err(failed)?)?;
            Ok(true)
        }
        // Lists of categories, which the newer layouts have beside packages.
        _ => Ok(false),
    }
}
