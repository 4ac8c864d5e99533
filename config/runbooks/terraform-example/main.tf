# A stand-in for infrastructure: terraform_data is built into Terraform and needs no provider, account or network.
terraform {
  required_version = ">= 1.4"

  # The runbook says where the state is kept.
  backend "local" {}
}

variable "environment" {
  type = string
}

variable "replicas" {
  type = number
}

variable "release" {
  type = string
}

resource "terraform_data" "network" {
  input = { environment = var.environment }
}

resource "terraform_data" "instance" {
  count = var.replicas
  input = { name = "${var.environment}-${count.index}", release = var.release, network = terraform_data.network.id }
}

output "instances" {
  value = [for instance in terraform_data.instance : instance.output.name]
}
