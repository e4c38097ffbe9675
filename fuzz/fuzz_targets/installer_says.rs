//! What installers, the policy's documents and the kernel say: read, or refused.
#![no_main]

use client::install::{apt, command, dnf, restart};
use deployment::policy::{DeployedUpdates, DeploymentPolicy};
use libfuzzer_sys::fuzz_target;
use sync::update::{CodeResult, Handler};

fuzz_target!(|bytes: &[u8]| {
    let _ = serde_json::from_slice::<DeployedUpdates>(bytes);
    let _ = serde_json::from_slice::<DeploymentPolicy>(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = apt::said(Some(100), &text);
    let _ = dnf::said(Some(1), &text);
    let _ = restart::packages(&text);
    let _ = restart::newer_kernel(text.lines(), "6.1.0-1-amd64");
    let _ = restart::uses_deleted(&text);
    let (program, arguments) = text.split_once('\n').unwrap_or((&*text, ""));
    let handler = Handler::CommandLine {
        program: program.into(),
        arguments: arguments.into(),
        default_result: CodeResult::Failed,
        restart_by_default: false,
        codes: Vec::new(),
    };
    let _ = command::words(&handler, &["setup"], "/folder");
    let _ = command::said(&handler, Some(1), &text);
});
