"""pydantic-ai: one streamed answer, its words as they come."""

import asyncio
import os

from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel


async def main():
    """Asks once."""
    agent = Agent(OpenAIChatModel(os.environ["TIDEGATE_MODEL"]))
    async with agent.run_stream(os.environ["PROMPT"]) as answer:
        async for text in answer.stream_text(delta=True):
            print(text, end="", flush=True)


asyncio.run(main())
