//! Keys and values that `tidegate.toml` may have.

use super::*;
use crate::auth::Algorithm;

/// The settings of the contract, with every key that has a default.
const ALL: &str = r#"
[gateway]
listen = ["127.0.0.1:8443"]
plain_listen = []
routes = "routes.d"
state = ".tidegate"
request_body_max = "64MiB"
connections_max = 10000
memory_budget = "50%"
memory_per_client = "50%"
memory_per_token = "25%"
memory_per_workspace = "50%"
keep_alive = "75s"
body_time_max = "10m"
body_rate_min = "1KiB"
handshake_timeout = "10s"
header_timeout = "30s"
body_timeout = "30s"
write_timeout = "2m"
shutdown_timeout = "30s"
unready_time = "0s"
access_log = "stdout"
trusted_proxies = []
proxy_protocol = []
headers_max = 64
head_bytes_max = "64KiB"
target_bytes_max = "8KiB"
streams_max = 128
[tls]
certificate = "certs/server.pem"
private_key = "certs/server.key"
[cors]
origins = []
headers = []
credentials = false
max_age = "10m"
[telemetry]
service_name = "tidegate"
[tokens]
issuer = "tidegate"
audience = "tidegate"
signing_key = "certs/tokens.key"
[admin]
listen = "127.0.0.1:9443"
socket = ".tidegate/admin.sock"
[metrics]
listen = "127.0.0.1:9464"
[gpus]
source = "auto"
host_memory_budget = "50%"
[placement]
quantum = 4.0
patience = 2.0
wait_bound = "120s"
switch_share_max = 1.0
prefetch = false
[workers]
stop_on_exit = false
start_timeout = "30m"
call_timeout = "2m"
drain_timeout = "10m"
stop_grace = "30s"
backoff = "1s"
failures_max = 5
stable_after = "60s"
log_bytes_max = "16MiB"
[queues.local]
launcher = "process"
[engines.vllm]
command = "vllm"
python = "python3"
pip_arguments = []
install_timeout = "2h"
"#;

fn errors(content: &str) -> Vec<String> {
    let (_, errors) = parse(Path::new("t.toml"), content.as_bytes());
    let lines = errors.iter().map(ToString::to_string);
    lines.map(|line| line.replacen("t.toml:", "", 1)).collect()
}

#[test]
fn no_file_an_empty_file_and_every_key_written_out_are_the_same() {
    let default = format!("{:?}", Settings::default());
    for content in ["", ALL] {
        let (settings, errors) = parse(Path::new("tidegate.toml"), content.as_bytes());
        assert_eq!(errors, []);
        assert_eq!(format!("{settings:?}"), default);
    }
}

#[test]
fn paths_are_relative_to_the_directory_of_the_file() {
    let content = "[gateway]\nstate = \"/var/lib/tidegate\"\n[engines.vllm]\ncommand = \"venv/bin/vllm\"\n[[tokens.trusted]]\nissuer = \"i\"\naudience = \"a\"\njwks = \"idp.json\"\nworkspace = \"w\"";
    let (settings, errors) = parse(Path::new("/etc/tidegate/t.toml"), content.as_bytes());
    assert_eq!(errors, []);
    assert_eq!(settings.gateway.routes, Path::new("/etc/tidegate/routes.d"));
    assert_eq!(settings.gateway.state, Path::new("/var/lib/tidegate"));
    assert_eq!(
        settings.vllm.command,
        Path::new("/etc/tidegate/venv/bin/vllm")
    );
    let keys = TrustedKeys::JwksFile("/etc/tidegate/idp.json".into());
    assert_eq!(settings.tokens.trusted[0].keys, keys);
    let (settings, _) = parse(Path::new("/etc/tidegate/t.toml"), b"");
    assert_eq!(settings.vllm.command, Path::new("vllm"), "found on PATH");
}

#[test]
fn what_is_written_takes_effect() {
    let content = r#"
        gpus = { source = "simulated", simulated = [{ memory = "80GiB" }, { memory = "40GiB" }], host_memory_budget = "64GiB" }
        admin.listen = "off"
        metrics = { listen = "[::1]:1" }
        queues.big.launcher = "process"
        workspaces.acme.max_concurrent_requests = 7
        gateway = { listen = [], plain_listen = ["0.0.0.0:80"], access_log = "a.log" }
        tokens.trusted = [{ issuer = "i", audience = "a", public_key = "k.pem", algorithm = "ES256", workspace = "w" },
            { issuer = "j", audience = "a", jwks = "https://j/jwks", workspace = "w" }]
    "#;
    let (settings, errors) = parse(Path::new("t.toml"), content.as_bytes());
    assert_eq!(errors, []);
    assert_eq!(
        settings.gpus.source,
        GpuSource::Simulated(vec![80 << 30, 40 << 30])
    );
    assert_eq!(
        settings.gpus.host_memory_budget,
        HostBudget::Bytes(64 << 30)
    );
    assert_eq!(settings.admin.listen, None);
    assert_eq!(settings.metrics.listen, "[::1]:1".parse().ok());
    assert_eq!(settings.gateway.access_log, Some("a.log".into()));
    let queues: Vec<_> = settings.queues.iter().map(QueueName::as_str).collect();
    assert_eq!(queues, ["big", "local"]);
    let workspace = |name| settings.workspace_max(&Workspace::new(name).unwrap());
    assert_eq!((workspace("acme"), workspace("other")), (Some(7), None));
    let keys: Vec<_> = settings
        .tokens
        .trusted
        .iter()
        .map(|issuer| &issuer.keys)
        .collect();
    let key = TrustedKeys::PublicKey {
        file: "k.pem".into(),
        algorithm: Algorithm::Es256,
    };
    let jwks = TrustedKeys::JwksUrl {
        url: "https://j/jwks".parse().unwrap(),
        ca: None,
    };
    assert_eq!(keys, [&key, &jwks]);
}

#[test]
fn everything_wrong_is_told_at_once() {
    for (content, expected) in [
        (
            "[gatway]\n[gateway]\nlisten = [\"localhost:8443\"]\nrequest_body_max = 64\nheader_timeot = \"1s\"\nconnections_max = 0",
            &[
                "1: gatway: this key is unknown at the top of this file: did you mean \"gateway\"?",
                "2: gateway.listen: no listener is left: write an address in listen or plain_listen",
                "3: gateway.listen: \"localhost:8443\" is not an address to listen on: write one with its port, as \"127.0.0.1:8443\", \"0.0.0.0:8443\", \"[::]:8443\"",
                "4: gateway.request_body_max: write a size in quotes, as \"64MiB\", not a whole number",
                "5: gateway.header_timeot: this key is unknown in [gateway]: did you mean \"header_timeout\"?",
                "6: gateway.connections_max: 0 is out of bounds: write 1 to 1000000",
            ][..],
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:8443\"\n[metrics]\nlisten = 9464",
            &[
                "1: admin.listen: 127.0.0.1:8443 is listened on twice: change one of the two",
                "4: metrics.listen: write a text in quotes, not a whole number",
            ],
        ),
        (
            "[gpus]\nsource = \"simulatd\"\nhost_memory_budget = \"120%\"\n[placement]\nswitch_share_max = 1.5\nquantum = nan",
            &[
                "2: gpus.source: \"simulatd\" is unknown here: did you mean \"simulated\"?",
                "3: gpus.host_memory_budget: write a share of the memory or a size, as \"50%\" or \"64GiB\"",
                "5: placement.switch_share_max: 1.5 is out of bounds: write 0 to 1",
                "6: placement.quantum: NaN is out of bounds: write 0 to 1000",
            ],
        ),
        (
            "[gpus]\nsource = \"simulated\"",
            &["2: gpus.simulated: name the pretended devices, as [{ memory = \"80GiB\" }]"],
        ),
        (
            "[queues.local]\n[queues.\"a b\"]\nlauncher = \"process\"\n[queues.hpc]\nlauncher = \"slurm\"",
            &[
                "1: queues.local.launcher: this is missing: write \"process\", for workers on this machine",
                "2: queues.a b: \"a b\" is not a valid queue name: use 1 to 63 letters, digits, '.', '_' and '-', the first a letter or a digit",
                "5: queues.hpc.launcher: \"slurm\" is unknown here: write \"process\"",
            ],
        ),
        (
            "[[tokens.trusted]]\nissuer = \"i\"\njwks = \"http://i/jwks\"\nworkspace = \"w\"\n[[tokens.trusted]]\nissuer = \"tidegate\"\naudience = \"a\"\njwks = \"f\"\nworkspace = \"w\"\n[[tokens.trusted]]\nissuer = \"k\"\naudience = \"a\"\npublic_key = \"k.pem\"\nworkspace = \"w\"",
            &[
                "1: tokens.trusted.audience: this is missing: write a text in quotes",
                "3: tokens.trusted.jwks: write an https:// address without user and fragment, as \"https://idp.example.org/jwks.json\"; http:// only with localhost, 127.0.0.1 or [::1], or the path of a file",
                "5: tokens.trusted.issuer: the issuer \"tidegate\" stands here twice",
                "13: tokens.trusted.algorithm: this is missing: name the algorithm of the public key, as \"EdDSA\"",
            ],
        ),
    ] {
        assert_eq!(errors(content), expected, "{content}");
    }
}

#[test]
fn what_stands_before_us_is_checked_too() {
    for (content, expected) in [
        (
            "[gateway]\ntrusted_proxies = [\"10.1.0.0/8\", \"lan\"]\nproxy_protocol = [\"127.0.0.1:9\"]\nhead_bytes_max = \"1KiB\"",
            &[
                "2: gateway.trusted_proxies: \"10.1.0.0/8\" has bits behind its prefix: write \"10.0.0.0/8\"",
                "2: gateway.trusted_proxies: \"lan\" is not a range of addresses: write one, as \"10.0.0.0/8\", \"192.168.1.7\" or \"fd00::/8\"",
                "3: gateway.proxy_protocol: 127.0.0.1:9 is not listened on: write it as in listen or plain_listen",
                "3: gateway.proxy_protocol: no peer may send a PROXY header yet: write the addresses of the balancer in trusted_proxies",
                "4: gateway.head_bytes_max: 1KiB is out of bounds: write 8KiB to 1MiB",
            ][..],
        ),
        (
            "[cors]\norigins = [\"*\"]\ncredentials = true\n[tls]\nclient_auth = \"required\"\n[[tls.certificates]]\ncertificate = \"a.pem\"\n[telemetry]\nsample = 0.5",
            &[
                "3: cors.credentials: browsers refuse credentials with any origin: name the origins",
                "5: tls.client_auth: this has an effect only with client_ca: write the PEM file of the authority that signs the clients' certificates",
                "6: tls.certificates.private_key: this is missing: write a PEM file",
                "9: telemetry.sample: this has an effect only with otlp_endpoint",
            ],
        ),
    ] {
        assert_eq!(errors(content), expected, "{content}");
    }
}

#[test]
fn a_named_file_that_is_missing_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("absent.toml");
    let errors = load(Some(&file)).unwrap_err();
    assert_eq!((&errors[0].file, errors[0].line), (&file, None));
    assert!(load(Some(home.path())).is_err(), "a directory is no file");
    std::fs::write(&file, vec![b'#'; 2 << 20]).unwrap();
    assert!(load(Some(&file)).is_err(), "it is too large");
}

#[test]
fn engines_say_where_vllm_comes_from_and_what_may_be_loaded() {
    let text = r#"
[engines.vllm]
command = "venv"
index_url = "https://pypi.example.org/simple"
pip_arguments = ["--pre"]
[engines.vllm.versions]
"0.7.2" = "old/venv"
"0.11.0" = "/opt/wrap-vllm"
[engines.vllm.allowed]
models = ["Qwen/*"]
directories = ["/models"]
trust_remote_code = true
"#;
    let (settings, errors) = parse(Path::new("/etc/tg/tidegate.toml"), text.as_bytes());
    assert!(errors.is_empty(), "{errors:?}");
    let vllm = &settings.vllm;
    // One word is looked up on PATH.
    assert_eq!(vllm.command, Path::new("venv"));
    let versions: Vec<_> = vllm.versions.values().collect();
    assert_eq!(
        versions,
        ["/opt/wrap-vllm", "/etc/tg/old/venv"].map(Path::new)
    );
    let allowed = vllm.allowed.as_ref().unwrap();
    assert!(allowed.model("Qwen/Qwen3-8B").is_ok() && allowed.model("gpt2").is_err());
    assert!(allowed.path("/models/a").is_ok() && allowed.path("/etc").is_err());
    assert!(allowed.remote_code().is_ok() && allowed.code("x").is_err());
}

#[test]
fn wrong_engines_are_told_with_their_line() {
    for (text, message) in [
        (
            "[engines.vllm]\nindex_url = \"pypi\"",
            "2: engines.vllm.index_url: write the address of a package index",
        ),
        (
            "[engines.vllm.versions]\nnewest = \"/opt/vllm\"",
            "2: engines.vllm.versions.newest: this is not a version",
        ),
        (
            "[engines.vllm.versions]\n\"0.7.2\" = 7",
            "2: engines.vllm.versions.0.7.2: write the path of a venv",
        ),
        (
            "[engines.vllm.allowed]\ndirectories = [\"models\"]",
            "2: engines.vllm.allowed.directories: write whole paths",
        ),
        (
            "[engines.vllm]\ncomand = \"x\"",
            "2: engines.vllm.comand: this key is unknown in [engines.vllm]: did you mean \"command\"?",
        ),
    ] {
        let errors = errors(text);
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(message), "{errors:?}");
    }
}
