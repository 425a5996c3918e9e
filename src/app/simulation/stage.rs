//! All that outlives a process of the gateway: its disk, its files, other servers, the time.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::facts::Facts;
use super::servers::Server;
use crate::auth::SigningKey;
use crate::config::{Catalog, HostBudget, Settings, load_catalog};
use crate::names::Workspace;
use crate::outbound::socket::in_memory;
use crate::random::Dice;
use crate::store::disk::Disk;
use crate::tasks::Tasks;

/// Routes to servers that someone else runs, and to a worker of ours.
const ROUTES: [(&str, &str); 3] = [
    (
        "ext.toml",
        r#"
[route]
name = "ext"
public = true
models = ["ext"]
max_concurrent_requests = 4
queue_requests_max = 3
queue_wait_max = "8s"
requests_per_minute = 60
tokens_per_minute = 20000
timeouts = { first_byte = "15s", idle = "10s", connect = "5s" }
[[upstream]]
url = "unix:/in-memory/ext0"
max_concurrent_requests = 2
[[upstream]]
url = "unix:/in-memory/ext1"
"#,
    ),
    (
        "other.toml",
        r#"
[route]
name = "other"
workspace = "other"
public = true
models = ["other"]
timeouts = { first_byte = "15s", idle = "10s" }
[[upstream]]
url = "unix:/in-memory/ext0"
"#,
    ),
    (
        "own.toml",
        r#"
[route]
name = "own"
public = true
timeouts = { first_byte = "15s", idle = "10s", cold_start = "12s" }
stream = { open_after = "3s", keep_alive = "12s" }
[instance]
name = "own"
engine = "sim"
[[deployment]]
model = "m"
endpoint_name = "own"
max_concurrent_requests = 3
[deployment.sim]
"#,
    ),
];

/// The surroundings.
pub(super) struct Stage {
    pub(super) disk: Disk,
    pub(super) state: PathBuf,
    pub(super) key: PathBuf,
    pub(super) wall: Arc<Mutex<Duration>>,
    pub(super) catalog: Arc<Catalog>,
    pub(super) tasks: Tasks,
    /// Servers that someone else runs.
    pub(super) servers: [Option<Server>; 2],
    dir: tempfile::TempDir,
    dice: RefCell<Dice>,
    workers: Cell<u32>,
}

impl Stage {
    pub(super) fn new(seed: u64, facts: &Facts) -> Self {
        // In memory where there is such a place: each change beside the key is flushed.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let dir = dir.unwrap();
        let (own, key) = (dir.path().join("state"), dir.path().join("tokens.key"));
        std::fs::create_dir(&own).unwrap();
        SigningKey::load_or_create(&key).unwrap();
        let mut stage = Self {
            disk: Disk::new(),
            state: own,
            key,
            wall: Arc::new(Mutex::new(Duration::from_hours(500_000))),
            catalog: catalog(),
            tasks: Tasks::new(),
            servers: [None, None],
            dir,
            dice: RefCell::new(Dice::new(seed)),
            workers: Cell::new(0),
        };
        stage.set_server(0, true, facts);
        stage.set_server(1, true, facts);
        stage
    }

    /// Starts or kills one of the servers that someone else runs.
    pub(super) fn set_server(&mut self, which: usize, up: bool, facts: &Facts) {
        let path = PathBuf::from(format!("{}/ext{which}", in_memory::PLACE));
        let before = self.servers[which].take();
        self.servers[which] = match before {
            Some(server) if up => Some(server),
            None if up => Some(Server::start(path, facts, &self.tasks)),
            Some(server) => {
                server.kill();
                None
            }
            None => None,
        };
    }

    pub(super) fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        let gateway = &mut settings.gateway;
        gateway.state.clone_from(&self.state);
        gateway.request_body_max = 32 << 10;
        gateway.memory.budget = HostBudget::Bytes(1 << 20);
        gateway.connections.max = 12;
        gateway.header_timeout = Duration::from_secs(5);
        gateway.keep_alive = Duration::from_secs(20);
        gateway.body_times.pause_max = Duration::from_secs(4);
        gateway.body_times.time_max = Duration::from_secs(12);
        gateway.write_timeout = Duration::from_secs(15);
        settings.tokens.signing_key.clone_from(&self.key);
        let other = Workspace::new("other").unwrap();
        settings.workspaces.insert(other, 2);
        settings
    }

    /// Lets the file beside the key be written, or not.
    pub(super) fn set_mark_writable(&self, yes: bool) {
        // A file is written beside it first, under this name.
        let beside = self.key.with_file_name("tokens.key.tmp");
        if yes {
            drop(std::fs::remove_dir(beside));
        } else {
            drop(std::fs::create_dir(beside));
        }
    }

    /// A number below `n` for what is not the story's.
    pub(super) fn dice(&self, n: usize) -> u32 {
        u32::try_from(self.dice.borrow_mut().below(n)).unwrap()
    }

    pub(super) fn next_worker(&self) -> u32 {
        self.workers.set(self.workers.get() + 1);
        self.workers.get()
    }

    /// A text in which our directory has no name, so that it is the same each time.
    pub(super) fn without_paths(&self, text: &str) -> String {
        text.replace(&self.dir.path().display().to_string(), "")
    }
}

/// Read once for all histories.
fn catalog() -> Arc<Catalog> {
    static CATALOG: OnceLock<Arc<Catalog>> = OnceLock::new();
    let read = || {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in ROUTES {
            std::fs::write(Path::join(dir.path(), name), text).unwrap();
        }
        let catalog = load_catalog(dir.path(), &Settings::default().queues, None);
        assert!(catalog.errors.is_empty(), "{:?}", catalog.errors);
        Arc::new(catalog)
    };
    Arc::clone(CATALOG.get_or_init(read))
}
