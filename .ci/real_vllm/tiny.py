"""Makes tiny models that the recipe has no kind for. Run by the Python that vLLM runs in:

    python tiny.py DIRECTORY classifier|speech

`classifier` has three classes, for /classify. `speech` hears sound, for transcriptions, translations and
realtime. Their weights are not written: vLLM makes them up (`load_format = "dummy"`).
"""

import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

#: The specials that Qwen's models know; the audio ones stand for a piece of sound.
SPECIAL = ["<pad>", "</s>", "<|im_start|>", "<|im_end|>", "<|audio_start|>", "<|audio_pad|>", "<|audio_end|>", "<asr_text>"]
HIDDEN, HEADS, HEAD = 64, 2, 32


def tokenizer():
    """Bytes, and a few pairs of them."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    words = ["the quick brown fox jumps over the lazy dog", "a gateway routes requests by the name of a model"]
    made.train_from_iterator(words, trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>", model_max_length=2048,
        extra_special_tokens={"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>",
                              "audio_eos_token": "<|audio_end|>"})


def decoder(size):
    """What both models' decoders have in common."""
    return {
        "vocab_size": size, "hidden_size": HIDDEN, "intermediate_size": 2 * HIDDEN, "num_hidden_layers": 2,
        "num_attention_heads": HEADS, "num_key_value_heads": HEADS, "head_dim": HEAD,
        "max_position_embeddings": 2048, "tie_word_embeddings": True,
    }


def classifier(words):
    """The configuration of a model that sorts texts."""
    return {
        "architectures": ["Qwen3ForSequenceClassification"], "model_type": "qwen3", "torch_dtype": "bfloat16",
        "id2label": {"0": "calm", "1": "glad", "2": "cross"}, "label2id": {"calm": 0, "glad": 1, "cross": 2},
        "pad_token_id": 0, "eos_token_id": 1, **decoder(len(words)),
    }


def speech(words):
    """The configuration of a model that hears."""
    ids = {name: words.convert_tokens_to_ids(name) for name in SPECIAL}
    rope = {"rope_type": "default", "mrope_section": [6, 5, 5], "mrope_interleaved": True}
    encoder = {
        "num_mel_bins": 128, "encoder_layers": 1, "encoder_attention_heads": HEADS, "encoder_ffn_dim": 2 * HIDDEN,
        "d_model": HIDDEN, "output_dim": HIDDEN, "n_window": 50, "n_window_infer": 800, "downsample_hidden_size": 32,
        "max_source_positions": 1500,
    }
    return {
        # The class of vLLM's that takes /v1/realtime beside the others.
        "architectures": ["Qwen3ASRRealtimeGeneration"], "model_type": "qwen3_asr", "torch_dtype": "bfloat16",
        "thinker_config": {
            "model_type": "qwen3_asr_thinker", "audio_config": encoder,
            "text_config": {**decoder(len(words)), "rope_scaling": rope},
            "audio_token_id": ids["<|audio_pad|>"], "audio_start_token_id": ids["<|audio_start|>"],
            "audio_end_token_id": ids["<|audio_end|>"],
        },
    }


def main(directory, kind):
    """Writes the files."""
    words = tokenizer()
    if kind == "speech":
        from transformers.models.qwen3_asr import Qwen3ASRFeatureExtractor, Qwen3ASRProcessor

        Qwen3ASRProcessor(feature_extractor=Qwen3ASRFeatureExtractor(), tokenizer=words).save_pretrained(directory)
    words.save_pretrained(directory)
    config = {"classifier": classifier, "speech": speech}[kind](words)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": 1, "pad_token_id": 0}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
