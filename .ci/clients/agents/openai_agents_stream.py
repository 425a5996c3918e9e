"""The OpenAI Agents SDK, over Responses: one streamed answer, its words as they come."""

import asyncio
import os

from agents import Agent, Runner


async def main():
    """Asks once."""
    agent = Agent(name="hello", model=os.environ["TIDEGATE_MODEL"])
    run = Runner.run_streamed(agent, os.environ["PROMPT"])
    async for event in run.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="", flush=True)


asyncio.run(main())
