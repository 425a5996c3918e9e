//! The names of metrics, as Prometheus reads them.

pub(in crate::telemetry) const REQUESTS: &str = "tidegate_requests_total";
pub(in crate::telemetry) const DURATION: &str = "tidegate_request_duration_seconds";
pub(in crate::telemetry) const FIRST_TOKEN: &str = "tidegate_time_to_first_token_seconds";
pub(in crate::telemetry) const INTER_TOKEN: &str = "tidegate_inter_token_seconds";
pub(in crate::telemetry) const TOKENS: &str = "tidegate_tokens_total";
pub(in crate::telemetry) const IN_FLIGHT: &str = "tidegate_in_flight_requests";
pub(in crate::telemetry) const QUEUED: &str = "tidegate_queued_requests";
pub(in crate::telemetry) const QUEUE_WAIT: &str = "tidegate_queue_wait_seconds";
pub(in crate::telemetry) const OVERHEAD: &str = "tidegate_overhead_seconds";
pub(in crate::telemetry) const LAST_ACTIVITY: &str = "tidegate_last_activity_timestamp_seconds";
pub(in crate::telemetry) const STATUS: &str = "tidegate_deployment_status";
pub(in crate::telemetry) const TRANSITION: &str = "tidegate_transition_seconds";
pub(in crate::telemetry) const DECISIONS: &str = "tidegate_decisions_total";
pub(in crate::telemetry) const GPU_MEMORY: &str = "tidegate_gpu_memory_bytes";
pub(in crate::telemetry) const HISTORY_DEGRADED: &str = "tidegate_history_degraded";
pub(in crate::telemetry) const STORE_DEGRADED: &str = "tidegate_store_degraded";
pub(in crate::telemetry) const STORE_HELD: &str = "tidegate_store_held_revocations";
pub(in crate::telemetry) const STORE_LOST: &str = "tidegate_store_lost_timestamp_seconds";
pub(in crate::telemetry) const CLOCK_BEHIND: &str = "tidegate_clock_behind_seconds";
pub(in crate::telemetry) const CONFIG_ERRORS: &str = "tidegate_config_errors";
pub(in crate::telemetry) const BUILD_INFO: &str = "tidegate_build_info";
pub(in crate::telemetry) const CONNECTIONS: &str = "tidegate_connections";
pub(in crate::telemetry) const OWN_LOG_DROPPED: &str = "tidegate_log_dropped_total";
pub(in crate::telemetry) const LOG_DROPPED: &str = "tidegate_access_log_dropped_total";
pub(in crate::telemetry) const REPLAYS: &str = "tidegate_upstream_replays_total";
pub(in crate::telemetry) const JWKS_AGE: &str = "tidegate_jwks_age_seconds";
pub(in crate::telemetry) const JWKS_REFRESHES: &str = "tidegate_jwks_refreshes_total";
pub(in crate::telemetry) const USAGE_LOST: &str = "tidegate_token_usage_lost_total";
pub(in crate::telemetry) const CERTIFICATE_ERRORS: &str = "tidegate_certificate_errors";
pub(in crate::telemetry) const CERTIFICATE_EXPIRY: &str =
    "tidegate_certificate_expiry_timestamp_seconds";
pub(in crate::telemetry) const SPANS_DROPPED: &str = "tidegate_trace_spans_dropped_total";
pub(in crate::telemetry) const UPSTREAM_IN: &str = "tidegate_upstream_in";
pub(in crate::telemetry) const UPSTREAM_FAILURES: &str = "tidegate_upstream_failures_total";
pub(in crate::telemetry) const EJECTIONS: &str = "tidegate_upstream_ejections_total";
pub(in crate::telemetry) const RETRIES: &str = "tidegate_upstream_retries_total";
