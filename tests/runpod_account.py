"""An account at RunPod in memory: templates, volumes and pods, with the rules that RunPod's description states.

Unknown fields and wrong types are refused with 422, broken rules and no capacity with 400, no balance with 402, bad
transitions with 409. Each method returns the status and the answer.
"""

import itertools
import re

TEXT, NUMBER, FLAG, TEXTS = "text", "number", "flag", "list of texts"
TEXT_MAP, OBJECT, ONE = "map of texts", "object", "list of one"
IS = {
    TEXT: lambda value: isinstance(value, str) and value != "",
    NUMBER: lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 1,
    FLAG: lambda value: isinstance(value, bool),
    TEXTS: lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
    TEXT_MAP: lambda value: isinstance(value, dict) and all(isinstance(text, str) for text in value.values()),
    OBJECT: lambda value: isinstance(value, dict),
    ONE: lambda value: isinstance(value, list) and len(value) == 1,
}
CONTAINER = {"image": TEXT, "args": TEXT, "disk": NUMBER, "ports": TEXTS, "env": TEXT_MAP, "registry": TEXT}
TEMPLATE = {
    **CONTAINER,
    **{"name": TEXT, "category": TEXT, "public": FLAG, "serverless": FLAG, "mounts": OBJECT},
    **{"startSsh": FLAG, "startJupyter": FLAG, "allowedCudaVersions": TEXTS},
}
POD = {
    **CONTAINER,
    **{"name": TEXT, "templateId": TEXT, "cloud": TEXT, "dataCenterIds": TEXTS, "gpu": OBJECT, "cpu": OBJECT},
    **{"mounts": OBJECT, "globalNetworking": FLAG, "startSsh": FLAG, "startJupyter": FLAG},
}
GPU = {"id": TEXT, "count": NUMBER, "minCudaVersion": TEXT, "allowedCudaVersions": TEXTS}
NETWORK = {"volumeId": TEXT, "path": TEXT}
VOLUME = {"name": TEXT, "size": NUMBER, "dataCenter": TEXT, "type": TEXT}

TRANSITIONS = {
    "PROVISIONING": ["stop", "terminate"],
    "STARTING": ["stop", "terminate"],
    "RUNNING": ["stop", "restart", "terminate"],
    "EXITED": ["start", "terminate"],
    "ERROR": ["start", "terminate"],
}
PRICES = {"NVIDIA GeForce RTX 4090": 0.74, "NVIDIA L40S": 1.09, "NVIDIA H100 PCIe": 2.89, "NVIDIA H100 80GB HBM3": 3.99}


class ProblemError(Exception):
    """An answer with an error status."""

    def __init__(self, status, detail, errors=None):
        self.status, self.detail, self.errors = status, detail, errors


def check_fields(where, body, known, required=()):
    if not isinstance(body, dict):
        raise ProblemError(422, "Request validation failed.", [f"{where}: must be an object"])
    errors = [f"{where}: additional properties '{key}' not allowed" for key in body if key not in known]
    errors += [f"{where}: missing property '{key}'" for key in required if key not in body]
    errors += [f"{where}.{key}: must be {known[key]}" for key in body if key in known and not IS[known[key]](body[key])]
    if errors:
        raise ProblemError(422, "Request validation failed.", errors)


class RunpodAccount:
    """Everything may be looked at and changed by tests."""

    def __init__(self):
        self.templates, self.volumes, self.pods = {}, {}, {}
        self.capacity = set(PRICES)
        """GPU ids that can be had."""
        self.balance_usd = 10.0
        self.late_lists = []
        """How many lists will lack the next things that are created; two more at most once another thing is."""
        self.unlisted = {}
        """How many lists will lack the thing of this id."""
        self.numbers = itertools.count(1)

    def answer(self, method, path, body):
        for verb, pattern, action in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and verb == method:
                return action(self, *match.groups(), **({"body": body} if body is not None else {}))
        raise ProblemError(404, "resource not found")

    def new_id(self, kind):
        return f"{kind}{next(self.numbers):04}"

    def keep(self, things, thing):
        self.unlisted = {identifier: min(lists, 2) for identifier, lists in self.unlisted.items()}
        self.unlisted[thing["id"]] = self.late_lists.pop(0) if self.late_lists else 0
        things[thing["id"]] = thing
        return 201, thing

    def listed(self, things):
        shown = [thing for thing in things.values() if not self.unlisted.get(thing["id"])]
        self.unlisted = {key: lists - (key in things) for key, lists in self.unlisted.items() if lists > 0}
        return shown

    def list_templates(self):
        return 200, {"templates": self.listed(self.templates)}

    def create_template(self, body):
        check_fields("$", body, TEMPLATE, ("name", "image"))
        container = {"args": "", "disk": 20, "ports": [], "env": {}, "registry": None}
        flags = {"public": False, "serverless": False, "startSsh": True, "startJupyter": True}
        rest = {"id": self.new_id("tpl"), "mounts": {}, "category": "NVIDIA", "allowedCudaVersions": []}
        template = {**container, **flags, **rest, **body}
        return self.keep(self.templates, template)

    def update_template(self, identifier, body):
        check_fields("$", body, TEMPLATE)
        if identifier not in self.templates:
            raise ProblemError(404, "template not found")
        self.templates[identifier].update(body)
        return 200, self.templates[identifier]

    def list_volumes(self):
        return 200, {"networkVolumes": self.listed(self.volumes)}

    def create_volume(self, body):
        check_fields("$", body, VOLUME, ("name", "size", "dataCenter"))
        if not 10 <= body["size"] <= 4096:
            raise ProblemError(422, "Request validation failed.", ["$.size: must be 10 to 4096"])
        return self.keep(self.volumes, {"id": self.new_id("vol"), "type": "STANDARD", **body})

    def update_volume(self, identifier, body):
        check_fields("$", body, {"name": TEXT, "size": NUMBER})
        if body.get("size", 4096) < self.volumes[identifier]["size"]:
            raise ProblemError(400, "size decrease attempted")
        self.volumes[identifier].update(body)
        return 200, self.volumes[identifier]

    def list_pods(self):
        return 200, {"pods": self.listed(self.pods)}

    def get_pod(self, identifier):
        if identifier not in self.pods:
            raise ProblemError(404, "pod not found")
        return 200, self.pods[identifier]

    def create_pod(self, body):
        check_fields("$", body, POD, ("name",) if "templateId" in body else ("name", "image"))
        self.check_pod(body)
        template = self.templates.get(body.get("templateId"), {})
        return self.keep(self.pods, new_pod(self.new_id("pod"), body, template))

    def check_pod(self, body):
        if ("gpu" in body) == ("cpu" in body):
            raise ProblemError(400, "exactly one of gpu or cpu must be set")
        check_fields("$.gpu", body["gpu"], GPU, ("id",))
        check_fields("$.mounts", body.get("mounts", {}), {"network": ONE, "persistent": OBJECT})
        if "templateId" in body and body["templateId"] not in self.templates:
            raise ProblemError(404, "template not found")
        for mount in body.get("mounts", {}).get("network", []):
            check_fields("$.mounts.network[0]", mount, NETWORK, ("volumeId", "path"))
            if mount["volumeId"] not in self.volumes:
                raise ProblemError(404, "network volume not found")
            if body.get("dataCenterIds") != [self.volumes[mount["volumeId"]]["dataCenter"]]:
                raise ProblemError(400, "network volume is in another data center")
        if self.balance_usd <= 0:
            raise ProblemError(402, "insufficient balance")
        if body["gpu"]["id"] not in self.capacity:
            raise ProblemError(400, "no instances available with the requested specification")

    def act(self, identifier, body):
        check_fields("$", body, {"action": TEXT}, ("action",))
        _, pod = self.get_pod(identifier)
        if body["action"] not in pod["actions"]:
            raise ProblemError(409, f"action {body['action']} is not valid for status {pod['status']}")
        if body["action"] == "terminate":
            return self.delete_pod(identifier)
        set_status(pod, "EXITED" if body["action"] == "stop" else "RUNNING")
        return 200, pod

    def delete_pod(self, identifier):
        self.get_pod(identifier)
        del self.pods[identifier]
        return 204, None

    def stream_logs(self, identifier):
        self.get_pod(identifier)
        return "lines"

    def list_gpus(self):
        return 200, {"gpus": [catalog_entry(gpu, gpu in self.capacity) for gpu in PRICES]}


ROUTES = [
    ("GET", "/v2/templates", RunpodAccount.list_templates),
    ("POST", "/v2/templates", RunpodAccount.create_template),
    ("PATCH", "/v2/templates/([^/]+)", RunpodAccount.update_template),
    ("GET", "/v2/network-volumes", RunpodAccount.list_volumes),
    ("POST", "/v2/network-volumes", RunpodAccount.create_volume),
    ("PATCH", "/v2/network-volumes/([^/]+)", RunpodAccount.update_volume),
    ("GET", "/v2/pods", RunpodAccount.list_pods),
    ("POST", "/v2/pods", RunpodAccount.create_pod),
    ("GET", "/v2/pods/([^/]+)", RunpodAccount.get_pod),
    ("DELETE", "/v2/pods/([^/]+)", RunpodAccount.delete_pod),
    ("POST", "/v2/pods/([^/]+)/action", RunpodAccount.act),
    ("GET", "/v2/pods/([^/]+)/logs", RunpodAccount.stream_logs),
    ("GET", "/v2/catalog/gpus", RunpodAccount.list_gpus),
]


def new_pod(identifier, body, template):
    container = {key: template.get(key, default) for key, default in (("image", ""), ("args", ""), ("disk", 20))}
    proxy = {"host": "ssh.runpod.io", "port": 22, "username": f"{identifier}-1"}
    proxy["command"] = f"ssh {proxy['username']}@ssh.runpod.io"
    pod = {
        **container,
        "id": identifier,
        "name": body["name"],
        "env": {**template.get("env", {}), **body.get("env", {})},
        "ports": template.get("ports", []),
        "registry": None,
        "mounts": body.get("mounts", {}),
        "gpu": {"id": body["gpu"]["id"], "count": body["gpu"].get("count", 1)},
        "cloud": body.get("cloud", "SECURE"),
        "dataCenterId": body.get("dataCenterIds", ["US-KS-2"])[0],
        "cudaVersion": "13.0",
        "ssh": {"proxy": proxy, "direct": None},
        "template": None,
        "cost": PRICES[body["gpu"]["id"]] * body["gpu"].get("count", 1),
        "locked": False,
        "globalNetworking": {"enabled": False},
        "runtime": {},
        "createdAt": "2026-06-01T12:00:00Z",
        "startedAt": None,
    }
    return set_status(pod, "PROVISIONING")


def set_status(pod, status):
    pod.update(status=status, actions=TRANSITIONS[status])
    if status == "EXITED":
        pod.update(cost=0.0, runtime=None)
    return pod


def catalog_entry(gpu, in_stock):
    level = "HIGH" if in_stock else "NONE"
    return {
        **{"id": gpu, "name": gpu, "pool": None, "manufacturer": "NVIDIA", "memory": 48},
        **{"secure": True, "community": False, "price": {"secure": PRICES[gpu], "community": 0.0}},
        **{"maxCount": {"secure": 8, "community": 0}, "availability": level},
        "dataCenters": [{"id": "EU-RO-1", "name": "EU Romania 1", "availability": level}] if in_stock else [],
    }
