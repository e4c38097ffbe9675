//! How much memory and time does it take to read an RPM repository as large as the largest real ones?
//! Input: 60,000 packages of 20 provides each, with and without 6,000 advisories of 80 packages; both
//! packed with gzip. Prints what was said, the time, and the largest resident size of the process.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use sync::adapter::{Adapter, Run, Watch};
use sync::fetch::{Fetcher, Patience};
use sync::rpm::folder::State;
use sync::rpm::repomd::{Listed, Repomd};
use sync::rpm::{RpmSettings, RpmSource};

const PACKAGES: u32 = 60_000;
const ADVISORIES: u32 = 6_000;

fn main() {
    let made = tempfile::tempdir().unwrap();
    fs::create_dir(made.path().join("repodata")).unwrap();
    for (name, text) in [("primary.xml", primary()), ("updateinfo.xml", updateinfo())] {
        println!("{name}: {} MiB", text.len() >> 20);
        fs::write(made.path().join(name), text).unwrap();
        // To be measured alone, it is packed and stated by others.
        said(Command::new("gzip").args(["-1", name]).current_dir(made.path()));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for kinds in [&["primary", "updateinfo"][..], &["primary"]] {
        state(made.path(), kinds);
        runtime.block_on(read(made.path()));
    }
}

/// Brings the repository and reads it.
async fn read(repository: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let run = Run {
        fetcher: Fetcher::new(Patience::default()).unwrap(),
        folder: folder.path().into(),
        now: "2026-11-27T00:00:00Z".parse().unwrap(),
        criteria: Arc::default(),
        watch: Arc::new(Watch::default()),
    };
    let url = url::Url::from_directory_path(repository).unwrap().to_string();
    let source = RpmSource::new(&RpmSettings { url, ..RpmSettings::default() }).unwrap();
    source.fetch(&run, None).await.unwrap();
    // The largest size counts from here on.
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, began, mut count) = (peak(), std::time::Instant::now(), 0);
    source
        .read(&run, None, &mut |_| {
            count += 1;
            Ok(())
        })
        .unwrap();
    println!("{count} said in {:?}; peak {} MiB, {before} before", began.elapsed(), peak());
    State::newest(&run).expect("it was brought whole");
}

/// Writes a `repomd.xml` with those files.
fn state(repository: &Path, kinds: &[&str]) {
    let listed = |kind: &&str| {
        let href = format!("{kind}.xml.gz");
        let sum = said(Command::new("sha256sum").arg(&href).current_dir(repository));
        let digests = format!("sha256:{}", &sum[..64]).parse().unwrap();
        Listed { kind: (*kind).to_owned(), href, digests, ..Listed::default() }
    };
    let files = kinds.iter().map(listed).collect();
    let repomd = Repomd { revision: "1".into(), files, ..Repomd::default() };
    fs::write(repository.join("repodata/repomd.xml"), repomd.write()).unwrap();
}

fn primary() -> String {
    let mut text = format!("<metadata packages='{PACKAGES}'>");
    for n in 0..PACKAGES {
        let provides: String = (0..20)
            .map(|k| format!("<rpm:entry name='lib-{n}-{k}.so()(64bit)' flags='EQ' epoch='0' ver='1' rel='1'/>"))
            .collect();
        text += &format!(
            "<package type='rpm'><name>package-of-some-length-{n}</name><arch>x86_64</arch>\
             <version epoch='0' ver='1.{n}' rel='1.el9'/><checksum type='sha256' pkgid='YES'>{n:064x}</checksum>\
             <summary>Something that is summarized in a line</summary><description>{}</description>\
             <packager>x</packager><url>https://example.org</url><time file='1' build='1'/>\
             <size package='12345' installed='1' archive='1'/>\
             <location href='Packages/p/package-of-some-length-{n}-1.{n}-1.el9.x86_64.rpm'/><format>\
             <rpm:vendor>AlmaLinux</rpm:vendor><rpm:sourcerpm>package-{n}-1.{n}-1.el9.src.rpm</rpm:sourcerpm>\
             <rpm:provides>{provides}</rpm:provides></format></package>\n",
            "words of a description ".repeat(20)
        );
    }
    text + "</metadata>"
}

fn updateinfo() -> String {
    let mut text = String::from("<updates>");
    for n in 0..ADVISORIES {
        let packages: String = (0..80)
            .map(|k| {
                let package = (n * 7 + k * 13) % PACKAGES;
                format!(
                    "<package name='package-of-some-length-{package}' version='1.{package}' release='1.el9' \
                     epoch='0' arch='x86_64' src='x.src.rpm'><filename>x.rpm</filename></package>"
                )
            })
            .collect();
        text += &format!(
            "<update from='a@b' type='security' version='1'><id>A-{n}</id><title>t</title><description>{}</description>\
             <pkglist><collection>{packages}</collection></pkglist></update>\n",
            "words of a description ".repeat(200)
        );
    }
    text + "</updates>"
}

/// Runs a program; what it said.
fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The most memory that this process had, in MiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}
