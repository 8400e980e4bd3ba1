//! The role that each RPC needs: the one table of it.

use super::{Role, Roles};

/// What an RPC needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: probes.
    Nothing,
    /// A valid token with one of these roles.
    OneOf(Roles),
}

const DETECT: Need = Need::OneOf(Roles::of(&[Role::Detect]));
const ADMIN: Need = Need::OneOf(Roles::of(&[Role::Admin]));
const READ: Need = Need::OneOf(Roles::of(&[Role::Admin, Role::Observe]));
const ANY: Need = Need::OneOf(Roles::ALL);

/// Every RPC that the server has, as its HTTP path. What does not stand here is refused, and a test
/// compares it with the protos.
pub const RPCS: &[(&str, Need)] = &[
    ("/headhunt.v1.DetectionService/Detect", DETECT),
    ("/headhunt.v1.DetectionService/Watch", DETECT),
    ("/headhunt.v1.DetectionService/ReportFeedback", DETECT),
    ("/headhunt.v1.DetectionService/GetInfo", ANY),
    ("/headhunt.v1.AdminService/UploadClip", ADMIN),
    ("/headhunt.v1.AdminService/ImportClips", ADMIN),
    ("/headhunt.v1.AdminService/ListClips", READ),
    ("/headhunt.v1.AdminService/GetClip", READ),
    ("/headhunt.v1.AdminService/RelabelClip", ADMIN),
    ("/headhunt.v1.AdminService/DeleteClip", ADMIN),
    ("/headhunt.v1.AdminService/HuntHeads", ADMIN),
    ("/headhunt.v1.AdminService/Calibrate", ADMIN),
    ("/headhunt.v1.AdminService/Evaluate", ADMIN),
    ("/headhunt.v1.AdminService/ListJobs", READ),
    ("/headhunt.v1.AdminService/FollowJob", READ),
    ("/headhunt.v1.AdminService/CancelJob", ADMIN),
    ("/headhunt.v1.AdminService/GetReport", READ),
    // Whoever detects chooses among profiles.
    ("/headhunt.v1.AdminService/ListProfiles", ANY),
    ("/headhunt.v1.AdminService/GetProfile", READ),
    ("/headhunt.v1.AdminService/ActivateProfile", ADMIN),
    ("/headhunt.v1.AdminService/RollBackProfile", ADMIN),
    ("/headhunt.v1.AdminService/DeleteProfile", ADMIN),
    ("/grpc.health.v1.Health/Check", Need::Nothing),
    ("/grpc.health.v1.Health/Watch", Need::Nothing),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ANY,
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ANY,
    ),
];

/// The RPC's name in the table and what it needs; `None` where the table does not have it.
pub fn need(path: &str) -> Option<(&'static str, Need)> {
    RPCS.iter().copied().find(|(known, _)| *known == path)
}
