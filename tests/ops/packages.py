"""Images, compose file, chart and unit: linted, rendered, and the image's root file system really run."""

import contextlib
import json
import os
import re
import shutil
import sys
import tomllib

import yaml

import common
from common import Process, check, eventually, free_port, http, run, say

DOCKER = common.ROOT / "docker"
CHART = common.ROOT / "deploy/helm/headhunt"
UNIT = common.ROOT / "deploy/systemd/headhunt.service"


def known():
    """Every key of the binary's settings as `section.key`."""
    defaults = tomllib.loads(common.known_settings())
    return {f"{section}.{key}" for section, keys in defaults.items() for key in keys}


# Keys that came with transport security and tokens. A binary from before that is told of, not passed over.
SECURITY = {
    "server.insecure", "server.tls_cert_file", "server.tls_key_file", "server.tls_client_ca_file", "server.token_file",
}


def check_keys(keys, where):
    """Keys must be known."""
    unknown = set(keys) - known()
    check(not unknown - SECURITY, f"{where}: unknown settings {', '.join(sorted(unknown - SECURITY))}")
    if unknown:
        say(f"SKIPPED: {where}: this binary has no {', '.join(sorted(unknown))}")


def images():
    files = [DOCKER / "Dockerfile", DOCKER / "Dockerfile.cuda"]
    run(common.VENV / "hadolint", *files)
    for file in files:
        text = file.read_text()
        for step in ("RUN make setup", "make build", "FROM scratch", "USER 65532:65532", '"health"]'):
            check(step in text, f"{file.name} has no `{step}`")
        variables = re.findall(r"HEADHUNT__(\w+)=", text)
        check_keys([v.lower().replace("__", ".") for v in variables], file.name)
    say("hadolint: both images; their steps are make setup and make build")


def compose():
    said = run(common.VENV / "docker-compose", "-f", DOCKER / "compose.yaml", "config", "--format", "json")
    document = json.loads(said[said.index("{"):])
    services = document["services"]
    for name, service in services.items():
        check(service.get("read_only") and service.get("cap_drop") == ["ALL"], f"{name} is not hardened")
        for port in service.get("ports", []):
            check(port["host_ip"] == "127.0.0.1", f"{name} publishes {port} beyond loopback")
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                check(os.path.exists(volume["source"]), f"{name}: there is no {volume['source']}")
        variables = [v for v in service.get("environment", {}) if v.startswith("HEADHUNT__")]
        check_keys([v.removeprefix("HEADHUNT__").lower().replace("__", ".") for v in variables], f"compose: {name}")
        if service["image"].startswith("headhunt:"):
            run(common.BIN, service["command"][0], "--help")
    datasource = yaml.safe_load((DOCKER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    check(datasource["datasources"][0]["url"] == "http://prometheus:9090" and "prometheus" in services, "data source")
    provider = yaml.safe_load((DOCKER / "grafana/provisioning/dashboards/headhunt.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    check(any(v["target"] == folder for v in services["grafana"]["volumes"]), "Grafana's dashboards are not mounted")
    run(common.PROMETHEUS / "promtool", "check", "config", "--syntax-only", DOCKER / "prometheus.yml")
    say(f"docker compose config: {len(services)} services, ports on loopback, files there")


TLS = {"tls": {"existingSecret": "cert"}, "auth": {"existingSecret": "tokens"}}
EVERYTHING = {
    **TLS,
    "model": {"path": "/models/x", "existingClaim": "models", "existingTokenSecret": "hub"},
    "profiles": {"existingConfigMap": "profiles", "active": "yard"},
    "serviceMonitor": {"enabled": True, "existingTokenSecret": "scrape"},
    "prometheusRule": {"enabled": True},
    "dashboard": {"enabled": True},
    "keda": {"enabled": True},
    "gateway": {"enabled": True, "envoy": True, "parentRefs": [{"name": "edge"}], "hostnames": ["video.example.org"]},
    "config": {"streams": {"max_streams": 32}, "log": {"level": "debug"}, "cameras": {"capacity_share": 0.8}},
    "extraEnv": [{"name": "HEADHUNT__ENGINE__MAX_BATCH_SEGMENTS", "value": "4"}],
    "nodeSelector": {"gpu": "yes"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}
RELEASES = {
    "mutual": {"tls": {"existingSecret": "cert", "mutual": True}},
    "plain": {"insecure": True, "gpus": 0, "persistence": {"enabled": False}},
    "secured": TLS,
    "everything": EVERYTHING,
    "hpa": {**TLS, "autoscaling": {"enabled": True}},
    "admin": {**TLS, "replicaCount": 1, "admin": {"enabled": True}},
    "scraped": {
        "tls": {"existingSecret": "cert", "mutual": True},
        "serviceMonitor": {"enabled": True, "existingClientCertSecret": "prometheus"},
    },
    "any gateway": {**TLS, "gateway": {"enabled": True, "parentRefs": [{"name": "edge"}]}},
}
REFUSED = {
    "beyond loopback": {},
    "one owner": {**TLS, "admin": {"enabled": True}},
    "profiles.existingConfigMap": {**EVERYTHING, "keda": {"enabled": False}, "replicaCount": 1, "admin": {"enabled": True}},
    "existingClientCertSecret": {"tls": {"existingSecret": "cert", "mutual": True}, "serviceMonitor": {"enabled": True}},
    "shows the service no certificate": {
        "tls": {"existingSecret": "cert", "mutual": True}, "gateway": {"enabled": True, "parentRefs": [{"name": "edge"}]},
    },
    "config.server.listen": {"insecure": True, "config": {"server": {"listen": "0.0.0.0:1"}}},
    "choose one": {**TLS, "keda": {"enabled": True}, "autoscaling": {"enabled": True}},
    "tls.existingSecret": {"insecure": True, "tls": {"mutual": True}},
    "parentRefs": {"insecure": True, "gateway": {"enabled": True}},
    "replicaCount": {"insecure": True, "replicaCount": "many"},
    "podDisruption": {"insecure": True, "podDisruption": {"enabled": True}},
}


@contextlib.contextmanager
def quiet():
    """Helm's library writes to the process's standard error by itself; it is shown where it fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def chart():
    import helm_python as helm

    with quiet():
        linted = helm.lint(str(CHART))
        loaded = helm.Chart.load(str(CHART))
    check(not linted["errors"], f"helm lint: {linted['errors']}")
    worse = [m for m in linted["messages"] if m["severity"] > 1]
    check(not worse, f"helm lint: {worse}")
    kinds = set()
    with loaded as chart:
        for name, values in RELEASES.items():
            with quiet():
                chart.validate_schema(values)
                manifests = chart.render(values, name="site", namespace="video")
            kinds |= release(name, values, manifests)
        for why, values in REFUSED.items():
            try:
                with quiet():
                    chart.validate_schema(values)
                    chart.render(values, name="site", namespace="video")
            except helm.HelmError as error:
                check(why in str(error), f"refused with another reason than {why!r}: {error}")
            else:
                raise common.Failed(f"{values} is rendered, but should be refused: {why}")
    say(f"helm lint; {len(RELEASES)} releases rendered and validated ({', '.join(sorted(kinds))}); {len(REFUSED)} refused")


def release(name, values, manifests):
    """Validates what Kubernetes knows, and looks at what matters; the kinds that were there."""
    import kubernetes_validate

    objects = []
    for path, text in manifests.items():
        if path.endswith(".yaml"):
            objects += [o for o in yaml.safe_load_all(text) if o]
    known_groups = ("v1", "apps/v1", "policy/v1", "autoscaling/v2")
    for o in objects:
        if o["apiVersion"] in known_groups:
            kubernetes_validate.validate(o, "1.34", strict=True)
    by_kind = {(o["kind"], o["metadata"]["name"]): o for o in objects}
    pod = by_kind["StatefulSet", "site-headhunt"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    check(pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"], f"{name}: pod")
    check(container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }, f"{name}: container")
    config = tomllib.loads(by_kind["ConfigMap", "site-headhunt"]["data"]["headhunt.toml"])
    grace = config["shutdown"]["grace_s"] + values.get("preStopSeconds", 5)
    check(pod["terminationGracePeriodSeconds"] > grace, f"{name}: killed while it drains")
    gpus = container["resources"]["limits"].get("nvidia.com/gpu", 0)
    check(gpus == values.get("gpus", 1), f"{name}: {gpus} GPUs")
    tls = values.get("tls", {})
    how = "httpGet" if tls.get("mutual") else "exec" if tls else "grpc"
    if tls and values.get("gateway"):
        check(("BackendTLSPolicy", "site-headhunt") in by_kind, f"{name}: the gateway does not speak TLS to the service")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        check(how in container[probe], f"{name}: {probe}")
    if how == "exec":
        run(common.BIN, *container["livenessProbe"]["exec"]["command"][1:2], "--help")
    mounts = {m["mountPath"] for m in container["volumeMounts"]}
    volumes = {v["name"] for v in pod["volumes"]} | {
        c["metadata"]["name"] for c in by_kind["StatefulSet", "site-headhunt"]["spec"].get("volumeClaimTemplates", [])
    }
    check({m["name"] for m in container["volumeMounts"]} == volumes, f"{name}: volumes and mounts differ")
    for section in config.values():
        for key, value in section.items():
            if key.endswith(("_file", "dir")):
                check(any(str(value).startswith(m) for m in mounts), f"{name}: {key} = {value} is not mounted")
    keys = {f"{section}.{key}" for section, keys in config.items() for key in keys}
    check_keys(keys, f"chart, release {name}")
    accepted(name, config)
    return {kind for kind, _ in by_kind}


def accepted(name, config):
    """The binary reads the rendered settings, and comes as far as the model, which is not there."""
    settings = known()
    lines = []
    for section, keys in config.items():
        lines += [f"[{section}]"] + [
            f"{key} = {json.dumps(value)}" for key, value in keys.items() if f"{section}.{key}" in settings
        ]
    file = common.TOOLS / f"chart-{name}.toml"
    file.write_text("\n".join(lines) + "\n")
    done = run(common.BIN, "serve", "--config", file, "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0",
               ok=False, timeout=30)
    for word in ("unknown setting", "configuration:", "invalid type"):
        check(word not in done.stdout, f"chart, release {name}: {done.stdout}")
    check(done.returncode != 0, "it served without a model")


def unit(site):
    analyze = shutil.which("systemd-analyze")
    if not analyze:
        say("SKIPPED: systemd unit: there is no systemd-analyze")
        return
    file = site.folder / "headhunt.service"
    file.write_text(UNIT.read_text().replace("/usr/local/bin/headhunt", str(common.BIN)))
    said = run(analyze, "verify", file)
    check(not said.strip(), f"systemd-analyze verify: {said}")
    said = run(analyze, "security", "--offline=true", "--no-pager", "--threshold=25", file)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said).group(1)
    say(f"systemd-analyze verify; exposure {level} of 10")


# With /proc and /dev, as container runtimes give them.
IN_ROOT = """
set -e
mkdir -p {root}/proc {root}/dev
mount --bind {root} {root}
mount -o remount,bind,ro {root}
mount -t tmpfs -o mode=1777 tmpfs {root}/tmp
mount -t tmpfs -o mode=755,uid=65532,gid=65532 tmpfs {root}/data
cp -r {site}/. {root}/data
chown -R 65532:65532 {root}/data
mount -t proc proc {root}/proc
mount --bind /dev {root}/dev
exec chroot --userspec=65532:65532 {root} /usr/bin/headhunt "$@"
"""


def root_file_system(site):
    """What docker/rootfs.sh collects, as the image has it: read-only, uid 65532, no shell, own variables."""
    if os.geteuid() != 0 or run("unshare", "-m", "true", ok=False).returncode != 0:
        say("SKIPPED: the image's root file system: needs root (mount, chroot)")
        return
    root, own = site.folder / "rootfs", site.folder / "for-image"
    said = run(DOCKER / "rootfs.sh", common.BIN, root)
    for word in ("sh", "bash", "dash", "busybox", "apt", "python3"):
        found = [p for p in root.rglob(word) if p.is_file()]
        check(not found, f"the image has {found}")
    own.mkdir()
    shutil.copytree(common.MODEL, own / "model")
    shutil.copy(site.profile, own / "cam.json")
    shutil.copy(site.clip, own / "yard.mp4")
    script = site.folder / "in-root.sh"
    script.write_text(IN_ROOT.format(root=root, site=own))
    variables = dict(re.findall(r"((?:GST|SSL)\w+)=(\S+)", (DOCKER / "Dockerfile").read_text()))
    check(len(variables) == 4, f"the image's variables: {variables}")

    def inside(*command, **environment):
        settings = [f"{k}={v}" for k, v in {**variables, **environment}.items()]
        return ["env", "-i", "PATH=/usr/bin:/bin:/usr/sbin:/sbin", *settings, "unshare", "-m", "bash", script, *command]

    grpc, metrics = free_port(), free_port()
    # As of the settings that have not to do with the image: cameras of this machine.
    more = {"HEADHUNT__CAMERAS__CAPACITY_SHARE": "1000", "HEADHUNT__FEEDBACK__DIR": "/data/feedback"}
    if "sources.allow" in known():
        more["HEADHUNT__SOURCES__ALLOW"] = "127.0.0.0/8"
    with Process(*inside("camera", "/data/yard.mp4", "--port", "0")) as camera, Process(
        *inside(
            "serve", "--device", "cpu", "--model", "/data/model", "--profile", "/data/cam.json",
            "--listen", f"127.0.0.1:{grpc}", "--metrics-listen", f"127.0.0.1:{metrics}", **more,
        )
    ) as server:
        url = camera.line(r"rtsp://\S+").group(0)
        eventually("the server", lambda: server.child.poll() is not None or http(f"http://127.0.0.1:{metrics}/ready")[0] == 200)
        check(server.child.poll() is None, f"the server ended:\n{server.text()}")
        address = f"127.0.0.1:{grpc}"
        run(*inside("health", "--addr", f"http://{address}"))
        said_of_upload = run(sys.executable, common.EXAMPLES / "upload.py", "--server", address, site.clip)
        check("160 frames" in said_of_upload, said_of_upload)
        with Process(sys.executable, common.EXAMPLES / "watch.py", "--json", "--server", address, url) as watcher:
            watcher.line('"final": true')
        server.signal(15)
        check(server.wait() == 0, server.text())
    check(run(*inside("health", "--addr", f"http://{address}"), ok=False).returncode == 1, "a dead server is healthy")
    say(said.strip().splitlines()[-1].replace(str(root), "the image") + "; serves, watches and answers probes read-only as uid 65532")


def main(site):
    common.TOOLS.mkdir(parents=True, exist_ok=True)
    images()
    compose()
    chart()
    unit(site)
    root_file_system(site)
