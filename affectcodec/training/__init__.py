# SPDX-License-Identifier: Apache-2.0
"""Training: data cache, losses, and a loop that resumes to the step."""
