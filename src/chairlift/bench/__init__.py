"""The load generator: sends what a plan says, when it says it, and reports what came back.

It talks to any server with OpenAI's images API, and imports no torch.
"""
