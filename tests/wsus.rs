//! A site as an upstream for others in the protocol of WSUS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{Site, temp_folder};

#[test]
fn it_is_off_until_it_is_set() {
    let data = temp_folder();
    let site = Site::start(data.path());
    let path = "/ServerSyncWebService/ServerSyncWebService.asmx";
    let refused = site.request("POST", path, &[("content-type", "text/xml")], b"<a/>");
    assert_eq!(refused.status, 404);
    assert!(refused.json()["detail"].as_str().unwrap().contains("sync.serve_wsus"));
}
