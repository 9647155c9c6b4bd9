"""Reports: faces of a result. They print, they never compute physics."""
