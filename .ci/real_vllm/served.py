"""One model behind a gateway, as the checks address it."""

from checks import openai_client
from real_vllm.worker import Worker


class Served:
    """A model, its deployment, and the token that may use it."""

    def __init__(self, gateway, token, model, identifier, tokens_max):
        self.gateway = gateway
        self.token = token
        self.model = model
        self.identifier = identifier
        #: Tokens of an answer that is meant to last.
        self.tokens_max = tokens_max

    def sdk(self, token=None, **options):
        """A client of the openai SDK."""
        return openai_client.client(self.gateway, token or self.token, **options)

    def worker(self):
        """Its worker as it is now."""
        return Worker.of(self.gateway, self.identifier)

    def counted(self):
        """Prompt and completion tokens that Tidegate has counted for it."""
        samples = self.gateway.metrics()
        return tuple(
            samples.sum("tidegate_tokens_total", deployment=self.identifier, kind=kind)
            for kind in ("prompt", "completion")
        )
