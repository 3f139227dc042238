# SPDX-License-Identifier: Apache-2.0
"""Teachers: what supervises affect in training, behind one protocol and cached on disk."""

from affectcodec.training.teachers.labels import LabelTeacher
from affectcodec.training.teachers.prosody import ProsodyTeacher
from affectcodec.training.teachers.protocol import Teacher, TeacherClip, WaveTeacher
from affectcodec.training.teachers.ssl import SSLTeacher
from affectcodec.training.teachers.store import EmbeddingStore, TargetCache

__all__ = [
    "EmbeddingStore",
    "LabelTeacher",
    "ProsodyTeacher",
    "SSLTeacher",
    "TargetCache",
    "Teacher",
    "TeacherClip",
    "WaveTeacher",
]
