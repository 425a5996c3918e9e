//! Every default of `tidegate.toml`, in one place.
//!
//! Paths stand here as they would be written in the file; [`super::gateway`]
//! makes them relative to its directory.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::edge::{Heads, Proxies};
use super::shares::{BodyTimes, Connections, Memory};
use super::{
    Admin, Cors, Gateway, GpuSource, Gpus, HostBudget, Metrics, Models, Placement, Sandbox,
    Settings, Telemetry, Tls, Tokens, VllmEngine, Workers,
};
use crate::models::room::{DiskLimits, DiskShare};
use crate::telemetry::output::Rotation;

const MIB: u64 = 1 << 20;

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl Default for Settings {
    /// The settings of an empty `tidegate.toml` in the working directory.
    fn default() -> Self {
        Self {
            gateway: Gateway::default(),
            tls: Tls::default(),
            cors: Cors {
                max_age: Duration::from_mins(10),
                ..Cors::default()
            },
            telemetry: Telemetry::default(),
            tokens: Tokens::default(),
            admin: Admin::default(),
            metrics: Metrics::default(),
            gpus: Gpus::default(),
            placement: Placement::default(),
            workers: Workers::default(),
            models: Models::default(),
            queues: vec![super::gateway::local_queue()],
            workspaces: HashMap::new(),
            vllm: VllmEngine::default(),
            file: None,
        }
    }
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: vec![loopback(8443)],
            plain_listen: Vec::new(),
            routes: PathBuf::from("routes.d"),
            state: PathBuf::from(".tidegate"),
            request_body_max: 64 * MIB,
            connections: Connections {
                max: 10_000,
                per_client: None,
                per_token: None,
            },
            memory: Memory {
                budget: HostBudget::Share(0.5),
                per_client: HostBudget::Share(0.5),
                per_token: HostBudget::Share(0.25),
                per_workspace: HostBudget::Share(0.5),
            },
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(30),
            // Above the 60 s of nginx and AWS's balancers, which would else send a request
            // into a connection that closes.
            keep_alive: Duration::from_secs(75),
            body_times: BodyTimes {
                pause_max: Duration::from_secs(30),
                time_max: Duration::from_mins(10),
                rate_min: 1024,
            },
            write_timeout: Duration::from_mins(2),
            shutdown_timeout: Duration::from_secs(30),
            unready_time: Duration::ZERO,
            access_log: None,
            access_logs: Rotation {
                bytes_max: 64 * MIB,
                files_max: 4,
            },
            proxies: Proxies::default(),
            heads: Heads::default(),
            forward_headers: None,
        }
    }
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            headers_max: 64,
            bytes_max: 64 << 10,
            target_bytes_max: 8 << 10,
            streams_max: 128,
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            certificate: PathBuf::from("certs/server.pem"),
            private_key: PathBuf::from("certs/server.key"),
            more: Vec::new(),
            clients: None,
        }
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp: None,
            ca: None,
            headers: None,
            service_name: "tidegate".to_owned(),
            sample: 1.0,
        }
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self {
            issuer: "tidegate".to_owned(),
            audience: "tidegate".to_owned(),
            signing_key: PathBuf::from("certs/tokens.key"),
            previous_keys: None,
            hs256: None,
            trusted: Vec::new(),
            lost_store: super::LostStore::Refuse,
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: Some(loopback(9443)),
            socket: PathBuf::from(".tidegate/admin.sock"),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Some(loopback(9464)),
        }
    }
}

impl Default for Gpus {
    fn default() -> Self {
        Self {
            source: GpuSource::Auto,
            library: PathBuf::from(crate::gpu::nvml::LIBRARY),
            poll: Duration::from_secs(2),
            host_memory_budget: HostBudget::Share(0.5),
        }
    }
}

impl Default for Placement {
    fn default() -> Self {
        Self {
            quantum: 4.0,
            patience: 2.0,
            wait_bound: Duration::from_mins(2),
            switch_share_max: 1.0,
            prefetch: false,
        }
    }
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            stop_on_exit: false,
            // Weights may have to be downloaded first.
            start_timeout: Duration::from_mins(30),
            // The first offload of a large model takes up to 36 s (vLLM 0.32
            // pins host memory).
            call_timeout: Duration::from_mins(2),
            drain_timeout: Duration::from_mins(10),
            stop_grace: Duration::from_secs(30),
            backoff: Duration::from_secs(1),
            failures_max: 5,
            stable_after: Duration::from_mins(1),
            cgroups: true,
            memory_max: None,
            stall_timeout: Duration::from_mins(10),
            probe_interval: Duration::from_secs(30),
            probe_timeout: Duration::from_secs(20),
            probe_failures: 3,
            scale_up_after: Duration::from_secs(2),
            scale_down_after: Duration::from_mins(2),
            log_bytes_max: 16 * MIB,
            sandbox: Sandbox::default(),
        }
    }
}

impl Default for Models {
    fn default() -> Self {
        Self {
            limits: DiskLimits {
                budget: None,
                free_min: DiskShare::Part(0.05),
            },
            fetch_first: true,
            fetches_max: 4,
            keep_fetching: true,
            prefetch: false,
            python: None,
        }
    }
}

impl Default for VllmEngine {
    fn default() -> Self {
        Self {
            command: PathBuf::from("vllm"),
            versions: BTreeMap::new(),
            python: PathBuf::from("python3"),
            index_url: None,
            pip_arguments: Vec::new(),
            // Some ten gigabytes over a slow line.
            install_timeout: Duration::from_hours(2),
            allowed: None,
        }
    }
}
