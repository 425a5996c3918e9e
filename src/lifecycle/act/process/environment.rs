//! Variables of ours that a worker gets.
//!
//! A list, for what this process holds is not the worker's to know: keys of servers
//! elsewhere, tokens, the sockets of the service manager. What has the shape of a
//! secret or of a Kubernetes service is left out even where its name fits: a service
//! called `vllm` sets `VLLM_PORT=tcp://10.0.0.1:8000`, which vLLM takes for its own.

use std::ffi::{OsStr, OsString};

use crate::config::Author;
use crate::vllm;

/// Names that a worker gets, without an ending `*` whole.
const KEPT: &[&str] = &[
    // The system's.
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TERM",
    "HOSTNAME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    // Of programs and libraries: vLLM on a CPU asks for tcmalloc here.
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LIBRARY_PATH",
    "CPATH",
    "CC",
    "CXX",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "PYTHON*",
    // To the hub and through its proxies.
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "HF_*",
    "HUGGINGFACE_*",
    "TRANSFORMERS_*",
    "TOKENIZERS_*",
    "DO_NOT_TRACK",
    // Of the engine and the devices.
    vllm::environment::ALL,
    "TORCH*",
    "PYTORCH_*",
    "TRITON_*",
    "FLASHINFER_*",
    "CUDA_*",
    "NVIDIA_*",
    "NCCL_*",
    "GLOO_*",
    "UCX_*",
    "HIP_*",
    "ROCR_*",
    "HSA_*",
    "OMP_*",
    "MKL_*",
    "KMP_*",
    "OPENBLAS_*",
    "NUMEXPR_*",
    "NUMBA_*",
    "MALLOC_*",
];

/// Parts of names that hold secrets.
const SECRET: [&str; 6] = ["TOKEN", "KEY", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"];

/// Names that have such a part, and hold no secret.
const HARMLESS: [&str; 2] = ["TOKENIZERS_PARALLELISM", "HF_HUB_DISABLE_IMPLICIT_TOKEN"];

/// The login of the hub, which models of admins may need; an operator's instance
/// states its own.
const HUB_LOGIN: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

/// The variables of ours that a worker gets whose file this author wrote. `more` are
/// further names that the settings list.
pub(super) fn kept(
    ours: impl Iterator<Item = (OsString, OsString)>,
    more: &[String],
    author: &Author,
) -> Vec<(OsString, OsString)> {
    let keeps = |(name, value): &(OsString, OsString)| {
        // What is no text can't be on a list.
        name.to_str()
            .is_some_and(|name| is_kept(name, value, more, author))
    };
    ours.filter(keeps).collect()
}

fn is_kept(name: &str, value: &OsStr, more: &[String], author: &Author) -> bool {
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    };
    if more.iter().any(|pattern| fits(pattern)) {
        return true;
    }
    if HUB_LOGIN.contains(&name) {
        return *author == Author::Admin;
    }
    let is_secret = SECRET.iter().any(|part| name.contains(part)) && !HARMLESS.contains(&name);
    KEPT.iter().any(|pattern| fits(pattern)) && !is_secret && !is_service(name, value)
}

/// True if Kubernetes set the variable for a service: `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT…`,
/// `NAME_PORT=tcp://…`, `NAME_PORT_80_TCP…`.
fn is_service(name: &str, value: &OsStr) -> bool {
    let value = value.to_string_lossy();
    let addressed = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.starts_with(scheme));
    let of_port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let (number, rest) = rest.split_once('_').unwrap_or((rest, ""));
        let protocol = ["TCP", "UDP", "SCTP"].iter().any(|p| rest.starts_with(p));
        !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && protocol
    });
    (addressed && name.contains("_PORT"))
        || of_port
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(vars: &[(&str, &str)], more: &[&str], author: &Author) -> Vec<String> {
        let vars = vars
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)));
        let more: Vec<String> = more.iter().map(|name| (*name).to_owned()).collect();
        let kept = kept(vars, &more, author);
        let name = |(name, _): (OsString, _)| name.into_string().unwrap();
        kept.into_iter().map(name).collect()
    }

    #[test]
    fn a_worker_gets_what_it_needs_and_nothing_that_is_ours_alone() {
        let needed = [
            ("PATH", "/bin"),
            ("HOME", "/root"),
            ("LD_PRELOAD", "libtcmalloc.so"),
            ("HF_HOME", "/hf"),
            ("VLLM_PORT", "5000"),
            ("VLLM_CPU_KVCACHE_SPACE", "1"),
            ("CUDA_VISIBLE_DEVICES", "0"),
            ("TOKENIZERS_PARALLELISM", "true"),
            ("LC_ALL", "C"),
        ];
        let ours = [
            ("UPSTREAM_KEY", "x"),
            ("OPENAI_API_KEY", "x"),
            ("TIDEGATE_TOKEN", "x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_PROFILE", "x"),
            ("GOOGLE_APPLICATION_CREDENTIALS", "x"),
            ("NOTIFY_SOCKET", "/run/x"),
            ("LISTEN_FDS", "3"),
            ("DBUS_SESSION_BUS_ADDRESS", "x"),
            ("SSH_AUTH_SOCK", "x"),
            ("VLLM_API_KEY", "x"),
            ("VLLM_PORT", "tcp://10.0.0.1:8000"),
            ("VLLM_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
            ("VLLM_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("VLLM_SERVICE_HOST", "10.0.0.1"),
            ("VLLM_SERVICE_PORT_HTTP", "8000"),
            ("HF_SERVICE_PORT", "80"),
        ];
        let all: Vec<_> = needed.iter().chain(&ours).copied().collect();
        let kept = names(&all, &[], &Author::Admin);
        let wanted: Vec<_> = needed.iter().map(|(name, _)| *name).collect();
        assert_eq!(kept, wanted);
    }

    #[test]
    fn the_settings_add_names_and_the_hubs_login_is_for_admins_files() {
        let vars = [("HF_TOKEN", "x"), ("MY_KEY", "x"), ("MY_OTHER", "x")];
        let operator = Author::Operator("ana".into());
        assert_eq!(names(&vars, &[], &Author::Admin), ["HF_TOKEN"]);
        assert_eq!(names(&vars, &[], &operator), Vec::<String>::new());
        assert_eq!(names(&vars, &["MY_KEY"], &operator), ["MY_KEY"]);
        assert_eq!(names(&vars, &["MY_*"], &operator), ["MY_KEY", "MY_OTHER"]);
    }
}
