//! Meaning of each metric, as Prometheus shows it.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

use super::names::{
    BUILD_INFO, CERTIFICATE_ERRORS, CERTIFICATE_EXPIRY, CLOCK_BEHIND, CONFIG_ERRORS, CONNECTIONS,
    DECISIONS, DURATION, EJECTIONS, FIRST_TOKEN, GPU_MEMORY, HISTORY_DEGRADED, IN_FLIGHT,
    INTER_TOKEN, JWKS_AGE, JWKS_REFRESHES, LAST_ACTIVITY, LOG_DROPPED, MEMORY_BUDGET, MEMORY_HELD,
    MIRRORED, OVERHEAD, OWN_LOG_DROPPED, QUEUE_WAIT, QUEUED, REPLAYS, REQUESTS, RETRIES,
    SPANS_DROPPED, STATUS, STORE_DEGRADED, STORE_HELD, STORE_LOST, TOKENS, TRANSITION,
    UPSTREAM_FAILURES, UPSTREAM_IN, USAGE_LOST,
};

/// Describes every name.
pub(super) fn describe() {
    describe_logs();
    describe_counter!(REQUESTS, "Requests by how they ended.");
    describe_histogram!(
        DURATION,
        Unit::Seconds,
        "From the head of the request to the last byte."
    );
    describe_histogram!(
        FIRST_TOKEN,
        Unit::Seconds,
        "From the head of the request to the first token."
    );
    describe_histogram!(
        INTER_TOKEN,
        Unit::Seconds,
        "Mean time between the events of a stream."
    );
    describe_counter!(
        TOKENS,
        "Tokens by kind, from the usage that the engine reports."
    );
    describe_gauge!(IN_FLIGHT, "Requests with a worker or upstream.");
    describe_gauge!(QUEUED, "Requests that wait for a place or for a worker.");
    describe_histogram!(
        QUEUE_WAIT,
        Unit::Seconds,
        "Wait for a place or for a worker."
    );
    describe_histogram!(
        OVERHEAD,
        Unit::Seconds,
        "Time that the gateway itself took, without waits and upstream."
    );
    describe_gauge!(
        LAST_ACTIVITY,
        Unit::Seconds,
        "When a request was last inside, since 1970."
    );
    describe_gauge!(STATUS, "1 for the status that the deployment has.");
    describe_histogram!(
        TRANSITION,
        Unit::Seconds,
        "Time from one residency to another."
    );
    describe_gauge!(GPU_MEMORY, Unit::Bytes, "GPU memory by who holds it.");
    describe_counter!(SPANS_DROPPED, "Spans that reached no collector.");
    describe_gauge!(
        CERTIFICATE_ERRORS,
        "Errors in certificates that stand there and are not served."
    );
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "Until when the served certificate is valid, since 1970."
    );
    describe_gauge!(
        CONFIG_ERRORS,
        "Errors in files whose present text is not in effect."
    );
    describe_gauge!(BUILD_INFO, "The version that runs.");
    describe_gauge!(CONNECTIONS, "Open client connections.");
    describe_counter!(
        REPLAYS,
        "Requests sent again because a kept connection had died."
    );
    describe_upstreams();
    describe_tokens();
}

fn describe_upstreams() {
    describe_counter!(
        DECISIONS,
        "Decisions about deployments by kind and reason; `tidegate events` tells each in words."
    );
    describe_gauge!(
        UPSTREAM_IN,
        "1 for a server that requests are sent to, 0 for one that is left out."
    );
    describe_counter!(
        UPSTREAM_FAILURES,
        "Requests that failed at a server, by what it did: `refused`, `name`, `tls`, `key_refused` and so on."
    );
    describe_counter!(
        EJECTIONS,
        "Times that a server was left out because requests to it failed."
    );
    describe_counter!(
        RETRIES,
        "Requests sent to a further server, by what the one before did."
    );
    describe_counter!(
        MIRRORED,
        "Copies of requests that a mirror was to get: `sent`, or why it did not: `asleep`, `full`, `copies`, `memory`, `api`."
    );
}

fn describe_tokens() {
    describe_gauge!(MEMORY_HELD, Unit::Bytes, "Memory that is held for clients.");
    describe_gauge!(
        MEMORY_BUDGET,
        Unit::Bytes,
        "Most memory that may be held for clients."
    );
    describe_gauge!(
        STORE_DEGRADED,
        "1 while the store of tokens can't be written."
    );
    describe_gauge!(
        STORE_HELD,
        "Revocations that are in effect and held in memory only."
    );
    describe_gauge!(
        STORE_LOST,
        Unit::Seconds,
        "When the store was lost or put back from an older copy; 0 for never."
    );
    describe_gauge!(
        CLOCK_BEHIND,
        Unit::Seconds,
        "How far the wall clock is behind the newest time that is known."
    );
    describe_gauge!(
        HISTORY_DEGRADED,
        "1 while the history of the plots can't be written."
    );
    describe_gauge!(
        JWKS_AGE,
        Unit::Seconds,
        "Time since an issuer's key set was last fetched whole."
    );
    describe_counter!(
        JWKS_REFRESHES,
        "Fetches of an issuer's key set, by how they ended."
    );
    describe_counter!(
        USAGE_LOST,
        "Requests that no token's usage counts, as too many tokens were in use."
    );
}

fn describe_logs() {
    describe_counter!(
        LOG_DROPPED,
        "Access log lines lost because the other side was full or too slow."
    );
    describe_counter!(
        OWN_LOG_DROPPED,
        "Lines of the process's own log lost because the other side was full or too slow."
    );
}
