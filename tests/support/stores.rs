//! Object stores that others made: Garage, which speaks S3 and keeps to no conditions, and Azurite,
//! which speaks as Azure Blob Storage does. On loopback, each with a folder of its own.
//!
//! `make test-stores` puts both where these look.

use super::{PATIENCE, s3, temp_folder};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Instant,
};

/// A program in the folder that tools/stores.sh fills.
fn program(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache");
    let program = cache.unwrap_or_else(home).join("depot").join(name);
    assert!(program.exists(), "{} is not there: `make test-stores` installs it", program.display());
    program
}

/// A Garage server with the bucket `bucket`; ended when dropped.
pub struct Garage {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

const GARAGE_KEY: &str = "GK0123456789abcdef01234567";
const GARAGE_SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

impl Garage {
    pub fn start() -> Self {
        let folder = temp_folder();
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, rpc) = (free(), free());
        let config = format!(
            "metadata_dir = {:?}\ndata_dir = {:?}\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
             rpc_bind_addr = \"127.0.0.1:{rpc}\"\nrpc_public_addr = \"127.0.0.1:{rpc}\"\n\
             rpc_secret = \"{GARAGE_SECRET}\"\nmetadata_fsync = true\ndata_fsync = true\n\
             [s3_api]\ns3_region = \"us-east-1\"\napi_bind_addr = \"127.0.0.1:{port}\"\n",
            folder.path().join("meta"),
            folder.path().join("data")
        );
        fs::write(folder.path().join("garage.toml"), config).unwrap();
        let child = Self::spawn(&folder);
        let mut it = Self { child, folder, port };
        it.wait();
        it
    }

    fn spawn(folder: &tempfile::TempDir) -> Child {
        let log = folder.path().join("log");
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        Command::new(program("garage/bin/garage"))
            .arg("-c")
            .arg(folder.path().join("garage.toml"))
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", GARAGE_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", GARAGE_SECRET)
            .env("GARAGE_DEFAULT_BUCKET", "bucket")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    fn wait(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(self.child.try_wait().unwrap().is_none(), "Garage ended:\n{}", log());
            assert!(Instant::now() < deadline, "Garage does not start:\n{}", log());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after [`Self::kill`], where it was.
    pub fn begin(&mut self) {
        self.child = Self::spawn(&self.folder);
        self.wait();
    }

    /// Tells a command where it is and who asks.
    pub fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        s3::tell(&format!("http://127.0.0.1:{}", self.port), command)
            .envs([("AWS_ACCESS_KEY_ID", GARAGE_KEY), ("AWS_SECRET_ACCESS_KEY", GARAGE_SECRET)])
    }
}

impl Drop for Garage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An Azurite server with the container `container`; ended when dropped.
pub struct Azurite {
    child: Child,
    url: String,
}

/// What every Azure emulator is asked by: published, and of no worth.
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container: a request signed as Azure wants it (Authorize with Shared Key).
const MAKE_CONTAINER: &str = r#"
import base64, email.utils, hashlib, hmac, sys, urllib.request
url, key = sys.argv[1:]
account, version, date = "devstoreaccount1", "2021-12-02", email.utils.formatdate(usegmt=True)
path = f"/{account}/container"
text = "PUT" + 12 * "\n" + f"x-ms-date:{date}\nx-ms-version:{version}\n/{account}{path}\nrestype:container"
proof = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
headers = {"x-ms-date": date, "x-ms-version": version, "Content-Length": "0",
           "Authorization": f"SharedKey {account}:{base64.b64encode(proof).decode()}"}
request = urllib.request.Request(f"{url}{path}?restype=container", method="PUT", headers=headers)
urllib.request.urlopen(request)
"#;

impl Azurite {
    pub fn start() -> Self {
        // --disableTelemetry: it would tell a host of its vendor that it runs.
        let mut child = Command::new(program("azurite/node_modules/.bin/azurite-blob"))
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"])
            .args(["--disableTelemetry", "--skipApiVersionCheck", "--silent"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let log = child.stdout.take().unwrap();
        let (tell, told) = mpsc::channel();
        // To the end, so that the server never waits for somebody to take its log.
        std::thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                let _ = tell.send(line);
            }
        });
        let mut it = Self { child, url: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while it.url.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = told.recv_timeout(left).expect("Azurite says where it is");
            if let Some((_, url)) = line.split_once("successfully listens on ") {
                it.url = url.trim().to_owned();
            }
        }
        let mut make = Command::new("python3");
        let made = make.args(["-c", MAKE_CONTAINER, &it.url, EMULATOR_KEY]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        it
    }

    /// Tells a command where it is and who asks.
    pub fn tell<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs([
            ("AZURE_STORAGE_ACCOUNT_NAME", "devstoreaccount1"),
            ("AZURE_STORAGE_ACCOUNT_KEY", EMULATOR_KEY),
            ("AZURE_STORAGE_ENDPOINT", &format!("{}/devstoreaccount1", self.url)),
            ("AZURE_ALLOW_HTTP", "true"),
        ])
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
