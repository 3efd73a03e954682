# The Tart image: Debian 13 for a Mac with Apple silicon, built by the same stages as the QEMU image.
#
# `tatin image build --sandbox tart` calls this: it gives the base by its digest and a name to build under, tries what came
# out, and only then puts it in place; Packer would replace a machine of the same name without a word.
# Not tried on a Mac: checked as far as that goes elsewhere (docs/machines.md).

packer {
  required_plugins {
    tart = {
      source  = "github.com/cirruslabs/tart"
      version = "= 1.21.0"
    }
  }
}

variable "base" {
  type        = string
  description = "The image to begin with, by digest: a Debian 13 with Tart's guest agent and the user admin."
  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.base))
    error_message = "The base must be named by its digest."
  }
}

variable "vm_name" {
  type        = string
  description = "The name to build under; nothing of that name may be there."
}

variable "build" {
  type        = string
  description = "The folder with the fetched parts, as the stages expect it at TATIN_BUILD."
}

variable "parts" {
  type        = string
  description = "What goes in, with a space between."
}

variable "disk_gb" {
  type    = number
  default = 20
}

source "tart-cli" "debian" {
  vm_base_name = var.base
  vm_name      = var.vm_name
  cpu_count    = 4
  memory_gb    = 8
  disk_size_gb = var.disk_gb
  headless     = true
  disable_vnc  = true
  ssh_username = "admin"
  ssh_password = "admin" # of the base; the stages remove the user and every login by password
  ssh_timeout  = "5m"
}

build {
  sources = ["source.tart-cli.debian"]

  provisioner "file" {
    source      = "${path.root}/stages"
    destination = "/tmp"
  }

  provisioner "file" {
    source      = "${var.build}/"
    destination = "/tmp/tatin-build"
  }

  # One stage after the other, as root; the first that fails ends the build. The last removes the user it came in by, so it
  # runs detached from nothing that needs that user again, and switches the machine off itself.
  provisioner "shell" {
    execute_command   = "sudo -n env TATIN_BUILD=/tmp/tatin-build 'TATIN_PARTS=${var.parts}' sh '{{ .Path }}'"
    expect_disconnect = true
    inline = [
      "set -eu",
      "cd /tmp/stages",
      "for stage in base-system create-agent-user languages bun agent-tools tart-machine finalize; do echo \"stage: $stage\"; sh \"./$stage.sh\"; done",
    ]
  }
}
