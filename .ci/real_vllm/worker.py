"""A vLLM worker as it is behind Tidegate's back: its process, socket and figures."""

import json
import time

from checks import processes, unix_http
from checks.prometheus import Samples
from checks.report import expect, wait_for


class Worker:
    """The API server of one deployment."""

    def __init__(self, pid, socket_path):
        self.pid = pid
        self.socket = socket_path

    @classmethod
    def of(cls, gateway, identifier):
        """The worker that `tidegate ps` shows for a deployment."""
        pid = gateway.deployment(identifier)["pid"]
        expect(pid, f"{identifier} has no worker")
        socket_path = processes.argument_after(pid, "--uds")
        expect(socket_path, f"worker {pid} has no --uds: {processes.arguments(pid)}")
        return cls(pid, socket_path)

    def metrics(self):
        """Its figures now."""
        return Samples(unix_http.get(self.socket, "/metrics"))

    def running(self):
        """Requests at work or waiting in the engine."""
        samples = self.metrics()
        return samples.sum("vllm:num_requests_running") + samples.sum("vllm:num_requests_waiting")

    def tokens(self):
        """Prompt and generated tokens that it has counted."""
        samples = self.metrics()
        return samples.sum("vllm:prompt_tokens_total"), samples.sum("vllm:generation_tokens_total")

    def is_sleeping(self):
        """Whether its engine sleeps."""
        return json.loads(unix_http.get(self.socket, "/is_sleeping"))["is_sleeping"]

    def wait_running(self, count, seconds):
        """Waits for a number of requests inside; returns the seconds that took."""
        began = time.monotonic()
        wait_for(f"{count} requests inside vLLM", lambda: self.running() == count, seconds, pause=0.02)
        return time.monotonic() - began
