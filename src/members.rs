//! The points of a group, which is of those that get the same or of those near to the same clients: they
//! are put in and taken out, and told of, in the same way.

use crate::{
    exit::Failure,
    output::Out,
    several::each,
    transport::{Client, Request, path},
    units,
};
use api::routes::{places::BoundaryGroupView, points::GroupView};
use http::Method;
use serde::{Serialize, de::DeserializeOwned};

/// A group that has points.
pub trait HasPoints: Serialize + DeserializeOwned {
    /// Where groups of this kind are, below the root of the interface.
    const ADDRESS: &str;
    /// What people call one.
    const CALLED: &str;

    /// Its name, and the points in it.
    fn name_and_points(&self) -> (&str, &[String]);
}

impl HasPoints for GroupView {
    const ADDRESS: &str = "point-groups";
    const CALLED: &str = "group";

    fn name_and_points(&self) -> (&str, &[String]) {
        (&self.name, &self.points)
    }
}

impl HasPoints for BoundaryGroupView {
    const ADDRESS: &str = "boundary-groups";
    const CALLED: &str = "boundary group";

    fn name_and_points(&self) -> (&str, &[String]) {
        (&self.name, &self.points)
    }
}

/// Puts points into a group (`PUT`), or takes them out (`DELETE`), one after the other.
pub async fn change<G: HasPoints>(
    method: Method,
    group: &str,
    points: &[String],
    client: &Client,
    out: Out,
) -> Result<(), Failure> {
    let change = async |point: &String| {
        let address = path(&[G::ADDRESS, group, "points", point]);
        client.ask::<G>(Request::new(method.clone(), &address)).await
    };
    let (mut changed, failed) = each(points, change).await;
    // The last answer tells of all.
    let Some(group) = changed.pop() else { return failed };
    let shown = out.show(&group, |w| {
        let (name, points) = group.name_and_points();
        let n = units::counted(points.len() as u64, "distribution point", "distribution points");
        writeln!(w, "{} {name} has {n}: {}", G::CALLED, points.join(" "))
    });
    failed.and(shown)
}
