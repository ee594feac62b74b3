"""The client: cli parses, templates, volumes, pods and logs act, api speaks HTTP; standard library only.

RunPod's description of the interface: https://api.runpod.io/v2/openapi.json.
"""
