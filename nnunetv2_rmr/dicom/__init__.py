"""Scans that come as DICOM, and outputs that go back as DICOM."""
