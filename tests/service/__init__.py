"""Tests of the service of new users."""
