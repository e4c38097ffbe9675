//! Deployments: which updates belong together, where their files are, to whom they go and when, what came of it.

mod groups;
mod packages;
mod plans;
mod rules;
mod staging;
mod status;

pub use groups::{GroupChange, GroupUpdateView, NewUpdateGroup, RegroupedView, UpdateGroupView};
pub use packages::{
    DeploymentPackageView, DownloadToPackage, NewDeploymentPackage, RemoveFromPackage,
};
pub use plans::{
    DeploymentChange, DeploymentPreview, DeploymentView, DownloadedDeployment, NewDeployment,
};
pub use rules::{
    ChangedMember, NewRule, RingBody, RingChainView, RingView, RingWord, RuleBody,
    RuleDeploymentBody, RulePreview, RuleRunView, RuleView, WaitingView,
};
pub use staging::{StagingLeft, StagingLine, StagingPlanView, StagingReason};
pub use status::{
    DeploymentDeviceDetail, DeploymentDeviceView, DeploymentStatusView, DeviceUpdateView, ErrorView,
};

use crate::site::Site;
use utoipa_axum::router::OpenApiRouter;

pub(super) fn routes() -> OpenApiRouter<Site> {
    OpenApiRouter::new()
        .merge(groups::routes())
        .merge(packages::routes())
        .merge(plans::routes())
        .merge(status::routes())
        .merge(rules::routes())
        .merge(staging::routes())
}
