"""Intermediate representations: frozen dataclasses, standard library only.

Data flows one way: PlanRequest + facts -> Candidate -> Estimate -> Plan -> Bundle.
"""
