//! Errors of a server that are about the path alone, and no word of what was asked.

use http::StatusCode;

use crate::openai::foreign::{self, Told};

/// True if an error says no more than that a web framework has no such path or method.
pub(super) fn is_of_framework(status: StatusCode, told: &Told) -> bool {
    let text = told.message.to_ascii_lowercase();
    let is_bare = told.code.is_none() && told.kind.is_none();
    let says =
        |whole: &str, page: &str| text.trim_end_matches('.') == whole || text.starts_with(page);
    is_bare
        && match status {
            StatusCode::NOT_FOUND => says("not found", "404 "),
            StatusCode::METHOD_NOT_ALLOWED => says("method not allowed", "405 "),
            _ => false,
        }
}

/// True if a server says that it has no such path: not that the model, or what the body
/// names, is unknown.
pub fn lacks_path(status: StatusCode, body: &[u8]) -> bool {
    let is_missing = matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
    );
    let told = is_missing.then(|| foreign::read(body)).flatten();
    told.is_some_and(|told| is_of_framework(status, &told) || names_path(&told))
}

/// In words that are some server's own: OpenAI's, Anthropic's, llama.cpp's, vLLM's where
/// the model is of another kind.
fn names_path(told: &Told) -> bool {
    let text = told.message.to_ascii_lowercase();
    let text = text.trim_end_matches('.');
    let is_whole = matches!(text, "not found" | "file not found" | "method not allowed");
    let is_of_kind = text.starts_with("the model does not support ") && text.ends_with(" api");
    is_whole || is_of_kind || text.starts_with("invalid url (")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_path_is_told_from_a_missing_model() {
        for body in [
            r#"{"detail":"Not Found"}"#,
            r#"{"error":{"message":"Invalid URL (POST /v1/responses)","type":"invalid_request_error","param":null,"code":null}}"#,
            r#"{"type":"error","error":{"type":"not_found_error","message":"Not Found"}}"#,
            r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#,
            r#"{"error":{"message":"The model does not support Embeddings API","type":"NotFoundError","param":null,"code":404}}"#,
            "404 page not found",
            "<html><head><title>404 Not Found</title></head></html>",
        ] {
            assert!(lacks_path(StatusCode::NOT_FOUND, body.as_bytes()), "{body}");
            assert!(
                !lacks_path(StatusCode::BAD_REQUEST, body.as_bytes()),
                "{body}"
            );
        }
        let method = br#"{"detail":"Method Not Allowed"}"#;
        assert!(lacks_path(StatusCode::METHOD_NOT_ALLOWED, method));
        for body in [
            r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}"#,
            r#"{"error":{"message":"The model `x` does not exist or you do not have access to it.","type":"invalid_request_error","param":null,"code":"model_not_found"}}"#,
            r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-x"}}"#,
            r#"{"error":"model 'x' not found"}"#,
            r#"{"error":{"message":"Previous response with id 'r' not found.","type":"invalid_request_error"}}"#,
            r#"{"error":{"code":"404","message":"Resource not found"}}"#,
            "",
            "{}",
        ] {
            assert!(
                !lacks_path(StatusCode::NOT_FOUND, body.as_bytes()),
                "{body}"
            );
        }
    }
}
