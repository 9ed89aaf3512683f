"""What `--help` and man(1) show of each command at work."""

from __future__ import annotations

#: By the words that call a command: lines for a shell.
EXAMPLES = {
    "mount": (
        "natsfs mount models /mnt/models",
        "natsfs mount nats://nats.example:4222/models /mnt/models --read-only",
        "natsfs mount --context prod --all /mnt/prod",
        "natsfs mount demo ~/demo --create --embedded",
        "natsfs mount models /mnt/models -o allow_other,cache_size=50G",
    ),
    "umount": ("natsfs umount /mnt/models", "natsfs umount --force /mnt/models"),
    "ls": ("natsfs ls models/llm/", "natsfs ls --json --deleted models"),
    "stat": ("natsfs stat models/llm/weights.bin", "natsfs stat /mnt/models/llm/weights.bin"),
    "du": ("natsfs du --max-depth 1 models", "natsfs du -s /mnt/models/llm"),
    "watch": ("natsfs watch models/llm/", "natsfs watch --json /mnt/models"),
    "meta get": ("natsfs meta get models/llm/weights.bin",),
    "meta set": ("natsfs meta set models/llm/weights.bin stage=prod",),
    "link": ("natsfs link models/llm-7b models/current",),
    "status": ("natsfs status", "natsfs status --json /mnt/models"),
    "top": ("natsfs top /mnt/models", "natsfs top --once --json /mnt/models"),
    "recover": ("natsfs recover", "natsfs recover models --unfinished=store"),
    "gc": ("natsfs gc models", "natsfs gc --delete --min-age 1d models"),
    "fsck": ("natsfs fsck models", "natsfs fsck --quick --json models/llm/"),
    "cache show": ("natsfs cache show", "natsfs cache show models"),
    "cache clear": ("natsfs cache clear models",),
    "doctor": ("natsfs doctor", "natsfs doctor nats://nats.example:4222/models"),
    "bucket create": ("natsfs bucket create scratch --ttl 7d --max-bytes 10G",),
    "bucket delete": ("natsfs bucket delete --force scratch",),
    "bucket list": ("natsfs bucket list --server nats://nats.example:4222",),
    "bucket info": ("natsfs bucket info models",),
    "bucket upgrade": ("natsfs bucket upgrade models",),
    "bucket seal": ("natsfs bucket seal --force releases",),
    "seal": ("natsfs seal --force releases",),
    "serve": ("natsfs serve",),
    "completion": ("source <(natsfs completion bash)",),
    "install-helper": ("natsfs install-helper", "natsfs install-helper --example natsfs@.service"),
    "help": ("natsfs help mount", "natsfs help troubleshooting"),
}


def examples_of(command_path: str) -> tuple[str, ...]:
    """Those of the command that is called by *command_path*, `natsfs` included."""
    return EXAMPLES.get(command_path.partition(" ")[2], ())
