//! Errors of servers that say that the prompt is longer than their context.

use http::StatusCode;

use crate::openai::foreign;

/// Codes and types that say so: OpenAI's, llama.cpp's.
const WORDS: [&str; 2] = ["context_length_exceeded", "exceed_context_size_error"];

/// Phrases of messages that say so, in small letters.
const PHRASES: [&str; 9] = [
    // OpenAI, and vLLM of most versions.
    "maximum context length",
    // vLLM 0.32: of the engine, and of prompts alone.
    "longer than the maximum model length",
    "exceeds model's maximum context length",
    // SGLang.
    "longer than the model's context length",
    // llama.cpp.
    "exceeds the available context size",
    // Anthropic.
    "prompt is too long",
    // Mistral and others.
    "too large for model with",
    // Gemini.
    "exceeds the maximum number of tokens",
    // LiteLLM, Bedrock.
    "input is too long",
];

/// True if errors of this status may say so.
pub fn has_status(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 413 | 422)
}

/// True if a server says that the prompt is too long for it.
pub fn is_of_prompt(status: StatusCode, body: &[u8]) -> bool {
    let Some(told) = has_status(status).then(|| foreign::read(body)).flatten() else {
        return false;
    };
    let code = told.code.as_ref().and_then(|code| code.as_str());
    let mut words = code.into_iter().chain(told.kind.as_deref());
    let text = told.message.to_ascii_lowercase();
    words.any(|word| WORDS.contains(&word)) || PHRASES.iter().any(|phrase| text.contains(phrase))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_that_is_too_long_is_told_from_other_faults() {
        for body in [
            r#"{"error":{"message":"This model's maximum context length is 4096 tokens. However, you requested 5000 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}"#,
            r#"{"error":{"message":"You passed 9001 input tokens and requested 16 output tokens. However, the model's context length is only 8192 tokens, resulting in a maximum context length error.","type":"BadRequestError","param":null,"code":400}}"#,
            r#"{"object":"error","message":"The decoder prompt (length 9001) is longer than the maximum model length of 8192.","type":"BadRequestError","code":400}"#,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_prompt_tokens":9001,"n_ctx":8192}}"#,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 208310 tokens > 200000 maximum"}}"#,
            r#"{"object":"error","message":"The input (9001 tokens) is longer than the model's context length (8192 tokens).","type":"BadRequestError"}"#,
        ] {
            assert!(
                is_of_prompt(StatusCode::BAD_REQUEST, body.as_bytes()),
                "{body}"
            );
            let other = StatusCode::INTERNAL_SERVER_ERROR;
            assert!(!is_of_prompt(other, body.as_bytes()), "{body}");
        }
        for body in [
            r#"{"error":{"message":"max_tokens must be at least 1, got 0.","type":"BadRequestError","param":"max_tokens","code":400}}"#,
            r#"{"error":{"message":"The model `x` does not exist.","type":"NotFoundError","param":"model","code":404}}"#,
            "",
            "{}",
        ] {
            assert!(
                !is_of_prompt(StatusCode::BAD_REQUEST, body.as_bytes()),
                "{body}"
            );
        }
    }
}
